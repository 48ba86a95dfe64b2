"""Data sets: images and labels to calibrate, search and report on."""
