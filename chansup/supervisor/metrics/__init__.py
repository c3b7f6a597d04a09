"""Counters, in the format of Prometheus."""
