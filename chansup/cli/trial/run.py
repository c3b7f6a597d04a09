"""The trial itself: two connections that stay, and one that moves."""

import asyncio
import secrets
from collections.abc import Callable, Iterator

from chansup.cli.client import Client
from chansup.cli.trial.comparison import Answer
from chansup.cli.trial.conversation import Conversation, Options, dial
from chansup.cli.trial.verdict import Trial, Verdict, judge
from chansup.errors import ChansupError
from chansup.protocol.status import Event


def run(client: Client, options: Options, pool: str | None, say: Callable[[str], None]) -> Verdict:
    """Try it on a running site, and return what was found. Raises ChansupError.

    One WebSocket moves to another worker, and nothing else; or, with `pool`, all processes of that
    pool are replaced. `say` is told what happens.
    """
    client.version()  # nobody is bothered where no supervisor runs
    return asyncio.run(_try(client, options, pool, say))


async def _try(
    client: Client, options: Options, pool: str | None, say: Callable[[str], None]
) -> Verdict:
    stayed = []
    for number in ("one", "another"):
        say(f"on {number} connection that stays…")
        stayed.append(await _reference(options))
    say("on a connection that moves…")
    mark = secrets.token_hex(16)
    conversation = await dial(options, mark)
    try:
        await conversation.greeting()
        await conversation.say(options.first)
        _expect_open(conversation)
        unasked = await _move(client, conversation, mark, pool)
        moved: list[Answer] = []
        if conversation.close_code is None:
            moved = await conversation.say(options.again)
        code, subprotocol = conversation.close_code, conversation.subprotocol
    finally:
        await conversation.close()
    return judge(Trial(options.url, subprotocol, stayed, moved, unasked, code))


async def _reference(options: Options) -> list[Answer]:
    """Return what the app answers to repeated messages, where nothing moves."""
    conversation = await dial(options)
    try:
        await conversation.greeting()
        await conversation.say(options.first)
        _expect_open(conversation)
        await conversation.hear(None)
        answers = await conversation.say(options.again)
        _expect_open(conversation)
        return answers
    finally:
        await conversation.close()


def _expect_open(conversation: Conversation) -> None:
    if conversation.close_code is not None:
        raise ChansupError(
            f"the app closed the connection with {conversation.close_code}, though nothing moved: "
            "give what it wants to hear, with --send and --again"
        )


async def _move(
    client: Client, conversation: Conversation, mark: str, pool: str | None
) -> list[Answer]:
    """Have it moved, and return what the client got meanwhile."""
    events = client.move(mark) if pool is None else client.restart(pool)
    moving = asyncio.create_task(asyncio.to_thread(_result, events))
    unasked: list[Answer] = []
    while not moving.done() and conversation.close_code is None:
        unasked += await conversation.hear(None)
    result = await moving
    if result.exit_code:
        raise ChansupError(result.message)
    if conversation.close_code is None:
        unasked += await conversation.hear(None)
    return unasked


def _result(events: Iterator[Event]) -> Event:
    *_, result = events
    return result
