"""``chansup check``: whether a config can be used on this machine, now and by this user."""
