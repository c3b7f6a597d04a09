import secrets

ADJECTIVES = (
    "Amber Brave Calm Clever Cosmic Curious Gentle Golden Happy Jolly Lucky Quiet Swift Witty"
)
ANIMALS = (
    "Badger Bison Crane Dolphin Falcon Fox Gecko Hare Heron Koala Lynx Otter Panda Puffin Raven"
)


def random_name() -> str:
    """Return a name for a visitor who has not chosen one."""
    return f"{secrets.choice(ADJECTIVES.split())} {secrets.choice(ANIMALS.split())}"
