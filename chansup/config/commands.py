"""Commands: a string that is split as a shell would, or a list that is taken as it is."""

import shlex

from chansup.config.keys import quoted

_SHELL_ONLY = ("|", "||", "&&", "&", ";", ">", ">>", "<", "2>", "2>&1")


def parse(command: str | list[str]) -> list[str]:
    """Return the program and its arguments; ValueError says what is wrong with the command.

    No shell runs it: where one is wanted, ``["sh", "-c", "…"]`` names it.
    """
    if isinstance(command, list):
        words = list(command)
    else:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"{quoted(command)} cannot be split: {error}") from None
        if shell := [word for word in words if word in _SHELL_ONLY]:
            raise ValueError(
                f"{quoted(shell[0])} means nothing without a shell, and no shell runs commands: "
                'write ["sh", "-c", "exec …"]'
            )
    if not words or not words[0]:
        raise ValueError('is empty: write a command, as in "python manage.py run_clock"')
    return words
