"""What can be asked of a supervisor: control socket, admin address, status page."""
