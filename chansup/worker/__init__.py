"""Channel workers: processes that run the app's consumers for named channels."""

from chansup.log_lines import keep_on_one_line

keep_on_one_line("chansup.worker")
