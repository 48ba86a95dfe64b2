"""The library: NNI's automatic pruners, this package's searchers in the caller's process and on the caller's functions."""
