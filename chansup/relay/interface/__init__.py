"""The interface side of the relay: an ASGI app that has others run the app."""
