"""The extension of ASGI by which an app learns of a handover, and keeps what it needs after one."""

EXTENSION = "chansup.handover"  # in scope["extensions"]
CHECKPOINT = "chansup.handover.checkpoint"  # the event by which an app stores one
POLICY = "chansup.handover.policy"  # the event by which an app says whether it may be moved
