"""How many descriptors the supervisor and its children may open."""

import resource

INHERITED = resource.getrlimit(resource.RLIMIT_NOFILE)  # soft and hard, as it was started


def raise_descriptor_limit() -> None:
    """Let the supervisor have every descriptor it may: each child costs a few.

    Children get the limit that the supervisor was started with: a program that uses select(2)
    cannot live with more than 1024.
    """
    _, most = INHERITED
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def most_descriptors() -> int:
    """Return the hard limit of open descriptors: what a server that holds connections takes."""
    return INHERITED[1]
