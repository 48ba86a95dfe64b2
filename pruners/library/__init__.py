"""The library: pruners that mask a network in the caller's own process, called as NNI's were."""
