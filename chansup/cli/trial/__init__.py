"""``chansup check --handover``: tries on a site whether a WebSocket survives a move."""
