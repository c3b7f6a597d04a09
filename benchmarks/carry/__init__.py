"""WebSockets of direct mode that outlive their process: what a deploy, a kill and idling take."""
