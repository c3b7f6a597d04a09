"""The worker side of the relay: it runs the app, for requests that others have accepted."""
