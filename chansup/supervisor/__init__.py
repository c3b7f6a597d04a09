"""The parent: it spawns, watches, replaces and stops processes, and says how they are.

Nothing here imports application code, nor anything that runs in children.
"""
