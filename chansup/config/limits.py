"""Resource limits of processes, see setrlimit(2)."""

import difflib
import re
import resource

import msgspec

from chansup.config.keys import quoted

_NAMES = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_")
}
_AMOUNT = re.compile(r"[0-9]{1,19}\Z", re.ASCII)
_FORMS = 'write a whole number, "unlimited", or both limits as "1024:4096"'


class Limit(msgspec.Struct, frozen=True):
    """One limit, as resource.setrlimit takes it."""

    resource: int
    soft: int
    hard: int


def parse(name: str, value: int | str) -> Limit:
    """Return the limit ``nofile = 65536``, ``"unlimited"`` or ``"1024:4096"`` (soft, then hard).

    Raises ValueError if there is no such limit or value.
    """
    if name not in _NAMES:
        plain = name.lower().removeprefix("rlimit_").removeprefix("limit")
        close = [plain] if plain in _NAMES else difflib.get_close_matches(plain, _NAMES, n=1)
        hint = f"did you mean {quoted(close[0])}?" if close else f"known are {', '.join(_NAMES)}"
        raise ValueError(f"{quoted(name)} is not a resource limit: {hint}")
    first, colon, second = str(value).partition(":")
    soft = _amount(first)
    hard = _amount(second) if colon else soft
    if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
        raise ValueError(f"the soft limit {first} is above the hard limit {second}")
    return Limit(_NAMES[name], soft, hard)


def exceeds_own(limit: Limit) -> bool:
    """Say whether only root could set the limit: it is above this process's own hard limit."""
    own = resource.getrlimit(limit.resource)[1]
    if own == resource.RLIM_INFINITY:
        return False
    return limit.hard == resource.RLIM_INFINITY or limit.hard > own


def _amount(text: str) -> int:
    if text in ("unlimited", "infinity"):
        return resource.RLIM_INFINITY
    if not _AMOUNT.match(text) or int(text) > 2**63 - 1:
        raise ValueError(f"{quoted(text)} is not a limit: {_FORMS}")
    return int(text)
