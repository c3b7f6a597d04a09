"""The mark of one run of a supervisor, in the environment of everything that descends from it."""

from pathlib import Path

VARIABLE = "CHANSUP_RUN"
GUARD_PROGRAM = Path(__file__).parents[1] / "launch" / "guard_process.py"  # ends what has a mark
