"""``python -m chansup`` is the ``chansup`` command."""

from chansup.cli import main

main()
