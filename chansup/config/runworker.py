"""Commands that run Channels' own worker, ``manage.py runworker``: chansup has a table for it."""

import re
import shlex

import msgspec

_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,99}\Z")
_BEFORE = ("manage.py", "django-admin", "django")  # how a command of Django is called
_WITH_VALUE = ("-v", "--verbosity", "--settings", "--pythonpath")


class RunWorker(msgspec.Struct, frozen=True):
    """What such a command says."""

    channels: list[str]
    layer: str = "default"
    is_plain: bool = True  # the names of channels, and of the layer, are all there is to it

    def table(self, name: str) -> str:
        """Return what does the same in chansup.toml, in one line."""
        channels = msgspec.json.encode(self.channels or ["thumbnails"]).decode().replace(",", ", ")
        layer = "" if self.layer == "default" else f' and layer = "{self.layer}"'
        return f"[workers.{name}] with channels = {channels}{layer}"


def find(command: str | list[str]) -> RunWorker | None:
    """Return what a command says to ``runworker``; None if it runs something else."""
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if len(words) == 3 and words[1] in ("-c", "-ec"):  # of a shell
            words = shlex.split(words[2])
    except ValueError:
        return None
    place = next((at for at, word in enumerate(words) if word == "runworker"), 0)
    if not place or not words[place - 1].endswith(_BEFORE):
        return None
    return _said(words[place + 1 :], is_plain=isinstance(command, str))


def _said(words: list[str], is_plain: bool) -> RunWorker:
    channels: list[str] = []
    layer = "default"
    rest = iter(words)
    for word in rest:
        if word == "--layer":
            layer = next(rest, layer)
        elif word.startswith("--layer="):
            layer = word.partition("=")[2]
        elif word in _WITH_VALUE:
            next(rest, None)
            is_plain = is_plain and word in ("-v", "--verbosity")
        elif word.startswith("-"):
            is_plain = is_plain and word.startswith(("-v", "--verbosity"))
        elif _CHANNEL.match(word):
            channels.append(word)
        else:  # a variable, or what comes behind in a shell
            is_plain = False
            break
    return RunWorker(list(dict.fromkeys(channels)), layer, is_plain and bool(channels))
