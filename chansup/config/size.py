"""Amounts of memory, as people write them."""

import re

from chansup.config.keys import quoted

_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)(i?B)?\Z", re.ASCII | re.IGNORECASE)
_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse(text: str) -> int:
    """Return the bytes of ``256M``, ``1G`` or ``1048576``. Raises ValueError."""
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"{quoted(text)} is not a size: expected bytes, or K, M, G as in 256M")
    return int(match[1]) * _FACTORS[match[2].upper()]
