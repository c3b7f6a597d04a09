"""Relay mode: the interface side, the worker side, and what passes between them."""
