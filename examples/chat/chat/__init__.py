# Shown in every page. Change it, run `chansup reload`, and watch the rooms move to the new code.
VERSION = "1"
