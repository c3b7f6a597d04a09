"""Counters: read from shared memory and summed over the dead and the living."""
