"""Holding WebSockets for processes that may end, and giving them to others that continue."""
