"""Relay mode: the interface side, the worker side, and what passes between them."""

from chansup.log_lines import keep_on_one_line

keep_on_one_line("chansup.relay")
