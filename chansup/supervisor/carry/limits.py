"""How many WebSockets the supervisor can hold: each takes one of its descriptors."""

import resource

_RESERVE = 1024  # descriptors for processes, listeners and the admin address, as far as there are


def most_held() -> int:
    """Return how many descriptors of this process may be those of WebSockets.

    The limit has been raised already: `plan.descriptors`.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - min(_RESERVE, soft // 2)
