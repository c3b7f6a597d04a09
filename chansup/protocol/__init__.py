"""What the supervisor and its children say to each other. Imports nothing else of chansup.

`launch` is what a launcher is told when it starts, `notify` is what a child tells back
(the systemd notify protocol), `scoreboard` is what it counts in shared memory.
"""
