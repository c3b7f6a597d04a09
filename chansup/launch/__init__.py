"""What runs first in a child that serves the app: one file per server, and what they all share.

`python -m chansup.launch` receives its orders in the environment (`protocol.launch`), wraps the app
for measurement, runs one server in this very process, says when it is ready, and retires it
without losing a request.
"""
