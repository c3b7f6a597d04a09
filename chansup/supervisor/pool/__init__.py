"""Slots and the processes that fill them: start, crash, replacement, rollout."""
