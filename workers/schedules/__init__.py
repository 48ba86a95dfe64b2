"""Pruners that train while they prune: what a trial of ``searcher: fixed`` does with ``pruner: agp``, ``admm``, …

Each is the library's schedule (``pruners.schedules``) on the job's network and images, with layers that can only be pruned
together masked alike. What it masks is zero in the end, so those channels are the first to be removed for real.
"""
