"""Signals by their names."""

import difflib
import signal

from chansup.config.keys import quoted


def parse(text: str) -> signal.Signals:
    """Return the signal called ``TERM`` or ``SIGTERM``; ValueError if there is none."""
    name = "SIG" + text.upper().removeprefix("SIG")
    try:
        return signal.Signals[name]
    except KeyError:
        pass
    names = [known.name.removeprefix("SIG") for known in signal.Signals]
    close = difflib.get_close_matches(name.removeprefix("SIG"), names, n=1)
    hint = f"did you mean {quoted(close[0])}?" if close else 'write "TERM", "INT" or "QUIT"'
    raise ValueError(f"{quoted(text)} is not a signal: {hint}")
