"""How weighty a message of chansup is."""

from typing import Literal

Level = Literal["debug", "info", "warning", "error"]


LEVELS = ("debug", "info", "warning", "error")
