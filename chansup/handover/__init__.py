"""What a handover is for an app, whoever moves its WebSocket: the relay, or a carrying server.

When the app is told to leave and how, what it may say about handovers, and what it is told.
docs/handover.md has the promises.
"""
