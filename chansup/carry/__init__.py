"""WebSockets that outlive the process that serves them.

A wrapper stands between asyncio's transport and the server's own WebSocket protocol. It keeps what
arrives, and what leaves, in shared memory until it is dealt with: the *journal*. The supervisor
holds a duplicate of each socket. When the process leaves or dies, another one gets the socket and
the journal, repeats the recorded handshake on a new protocol object of its server, swallows the
answer, and continues at the right byte.
"""
