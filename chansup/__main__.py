"""``python -m chansup`` is the ``chansup`` command."""

from chansup.entry import main

main()
