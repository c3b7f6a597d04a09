"""`chansup bench`: how fast a server answers, over HTTP and over WebSockets."""
