"""File modes and umasks, written in octal digits."""

import re

from chansup.config.keys import quoted

_OCTAL = re.compile(r"(0o)?[0-7]{1,4}\Z")


def parse(text: str) -> int:
    """Return the permission bits that ``027`` or ``0o660`` means; ValueError if it means none."""
    if not _OCTAL.match(text) or int(text, 8) > 0o777:
        raise ValueError(
            f'{quoted(text)} is not an octal mode: write three digits from 0 to 7, "027"'
        )
    return int(text, 8)
