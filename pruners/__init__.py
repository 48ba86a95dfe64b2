"""Pruning: which channels belong together, which matter least, and how to take them out of a network for real."""
