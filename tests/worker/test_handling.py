"""Channel workers as they are run: real consumers, real processes, a real hub."""

import json
from pathlib import Path

import pytest

from chansup.protocol.bulletin import Bulletin
from tests.running import Running
from tests.worker.project import Project

THUMBNAILS = '[workers.thumbnails]\nchannels = ["thumbnails"]\n'
MAIL = '[workers.mail]\nchannels = ["mail"]\n'


def numbers(count: int, **rest: object) -> list[dict[str, object]]:
    return [{"number": number, **rest} for number in range(count)]


@pytest.mark.parametrize("channel", ["thumbnails", "mail"])
def test_messages_reach_their_consumer_in_order(either: Project, channel: str) -> None:
    with either.running(f'[workers.x]\nchannels = ["{channel}"]\n') as run:
        either.send(channel, *numbers(50))
        run.wait_for(lambda: either.journal() == list(range(50)))
        assert run.stop() == 0
    assert "Traceback" not in run.output()


def test_a_consumer_that_raises_costs_one_message(site: Project) -> None:
    with site.running(THUMBNAILS + MAIL) as run:
        for channel in ("thumbnails", "mail"):
            site.send(channel, *numbers(3), {"number": 3, "fail": True}, *numbers(2))
        run.wait_for(lambda: len(site.journal()) == 10)
        assert run.stop() == 0
    output = run.output()
    for slot, channel in (("thumbnails.0", "thumbnails"), ("mail.0", "mail")):
        start = f"{slot} | chansup: channel {channel}: the consumer raised, one message is lost"
        lines = output[output.index(start) :].splitlines()
        assert lines[1] == f"{slot} | Traceback (most recent call last):"
        assert "work/consumers.py" in lines[2]
        end = next(line for line in lines if "| ArithmeticError" in line)
        assert end == f"{slot} | ArithmeticError: cannot do 3"
    assert output.count("Traceback") == 2
    assert "chansup/worker" not in output
    assert "/channels/" not in output


@pytest.mark.parametrize("message", [{"type": "no.such"}, {"type": "_private"}, {"type": ""}])
@pytest.mark.thorough
def test_a_message_that_nobody_understands_is_not_the_end(site: Project, message: dict) -> None:
    with site.running(THUMBNAILS) as run:
        site.send("thumbnails", {"number": 1, **message}, {"number": 2})
        run.wait_for(lambda: site.journal() == [2])
        run.wait_for_output("the consumer raised, one message is lost")
    assert "ValueError: " in run.output() or "AttributeError: " in run.output()


@pytest.mark.parametrize("channel", ["thumbnails", "mail"])
def test_a_consumer_cannot_end_the_process(site: Project, channel: str) -> None:
    with site.running(f'[workers.x]\nchannels = ["{channel}"]\n') as run:
        site.send(channel, {"number": 1, "exit": True}, {"number": 2})
        run.wait_for(lambda: site.journal() == [2])
        assert len({entry[2] for entry in site.entries()}) == 1
        run.wait_for_output("SystemExit, which ends no worker: 3")


@pytest.mark.parametrize("channel", ["thumbnails", "mail"])
@pytest.mark.thorough
def test_an_iterator_that_is_empty_costs_a_message_as_any_other_mistake(
    site: Project, channel: str
) -> None:
    """A thread's StopIteration would leave asyncio waiting for ever."""
    with site.running(f'[workers.x]\nchannels = ["{channel}"]\n') as run:
        site.send(channel, {"number": 1, "next": True}, {"number": 2})
        run.wait_for(lambda: site.journal() == [2])
        run.wait_for_output("raised StopIteration")
        run.wait_for_output("one message is lost")


@pytest.mark.thorough
def test_a_consumer_may_stop_after_a_message(site: Project) -> None:
    with site.running(THUMBNAILS) as run:
        site.send("thumbnails", *numbers(5, stop=True))
        run.wait_for(lambda: site.journal() == list(range(5)))
    assert "raised" not in run.output()


@pytest.mark.thorough
def test_a_consumer_has_no_client_to_send_to(site: Project) -> None:
    with site.running(THUMBNAILS) as run:
        site.send("thumbnails", {"type": "say", "number": 1}, {"number": 2})
        run.wait_for(lambda: site.journal() == [2])
        run.wait_for_output("use self.channel_layer.send()")


@pytest.mark.thorough
def test_an_instance_lives_on_over_messages(site: Project) -> None:
    with site.running(THUMBNAILS) as run:
        site.send("thumbnails", *numbers(3, type="count"))
        run.wait_for(lambda: len(site.entries()) == 3)
    assert [entry[0] for entry in site.entries()] == ["1", "2", "3"]


# How many at a time


@pytest.mark.thorough
def test_one_at_a_time_over_all_channels(site: Project) -> None:
    with site.running('[workers.x]\nchannels = ["thumbnails", "mail"]\n') as run:
        messages = [(one, {"number": n}) for n in range(30) for one in ("thumbnails", "mail")]
        site.send_all(messages)
        run.wait_for(lambda: len(site.journal()) == 60)
    words = [entry[0] for entry in site.entries()]
    assert words == ["begin", "done"] * 60


@pytest.mark.parametrize("channel", ["thumbnails", "mail"])
def test_several_at_a_time(either: Project, channel: str) -> None:
    """Each waits until the others are here, so they are side by side, or here for ever."""
    with either.running(f'[workers.x]\nchannels = ["{channel}"]\nconcurrency = 3\n') as run:
        either.send(channel, *numbers(3, type="meet", others=3))
        run.wait_for(lambda: len(either.journal()) == 3)
        either.send(channel, *numbers(30))
        run.wait_for(lambda: len(either.journal()) == 33)
        pids = {entry[2] for entry in either.entries()}
        threads = {entry[3] for entry in either.entries()}
        assert len(pids) == 1
        assert len(threads) == (3 if channel == "mail" else 1)


def test_never_more_at_a_time(site: Project) -> None:
    tables = '[workers.x]\nchannels = ["thumbnails", "mail"]\nconcurrency = 3\n'
    with site.running(tables) as run:
        messages = [
            (one, {"number": n, "seconds": 0.01})
            for n in range(40)
            for one in ("thumbnails", "mail")
        ]
        site.send_all(messages)
        run.wait_for(lambda: len(site.journal()) == 80)
    in_hand, most = 0, 0
    for entry in site.entries():
        in_hand += 1 if entry[0] == "begin" else -1
        most = max(most, in_hand)
    assert most == 3


@pytest.mark.thorough
def test_a_busy_process_takes_nothing(either: Project) -> None:
    """What it took would wait while the other one is free."""
    with either.running('[workers.x]\nchannels = ["thumbnails", "mail"]\nprocesses = 2\n') as run:
        either.send("thumbnails", {"number": 100, "seconds": 1000})
        run.wait_for(lambda: either.journal("begin") == [100])
        for _ in range(3):
            either.send("thumbnails", *numbers(5))
            either.send("mail", *numbers(5))
        run.wait_for(lambda: len(either.journal()) == 30)
        busy = either.entries()[0][2]
        assert {entry[2] for entry in either.entries()} - {busy}
        for pid in run.pids("x"):
            if str(pid) == busy:
                run.send_to(pid, 9)
        assert run.stop() == 0


@pytest.mark.thorough
def test_no_channel_starves(site: Project) -> None:
    with site.running('[workers.x]\nchannels = ["thumbnails", "mail"]\n') as run:
        busy = run.pids("x")[0]
        run.send_to(busy, 19)
        site.send("thumbnails", *numbers(100))
        site.send("mail", *[{"number": 1000 + number} for number in range(10)])
        run.send_to(busy, 18)
        run.wait_for(lambda: len(site.journal()) == 110)
    done = site.journal()
    assert max(done.index(1000 + number) for number in range(10)) < 60


# Which channels


@pytest.mark.parametrize(
    ("keys", "consumed"),
    [
        ('only_channels = ["mail*"]', {"mail", "mail.slow"}),
        ('exclude_channels = ["mail*"]', {"thumbnails", "thumbnails.large"}),
        ('only_channels = ["*"]\nexclude_channels = ["*.*"]', {"thumbnails", "mail"}),
        ('only_channels = ["thumbnails", "mail.????"]', {"thumbnails", "mail.slow"}),
    ],
)
@pytest.mark.thorough
def test_globs_choose_among_the_names_of_the_router(
    site: Project, keys: str, consumed: set[str]
) -> None:
    names = ["thumbnails", "thumbnails.large", "mail", "mail.slow"]
    rest = [name for name in names if name not in consumed]
    tables = f"[workers.x]\n{keys}\n[workers.rest]\nchannels = {json.dumps(rest)}\n"
    with site.running(tables) as run:
        for number, name in enumerate(names):
            site.send(name, {"number": number})
        run.wait_for(lambda: len(site.journal()) == 4)
        (pid,) = run.pids("x")
    handled = {names[int(entry[1])] for entry in site.entries() if entry[2] == str(pid)}
    assert handled == consumed


# The database


@pytest.mark.thorough
def test_database_connections_are_closed_as_channels_does(site: Project) -> None:
    site.python("from django.core.management import call_command as c; c('migrate', run_syncdb=1)")
    with site.running(MAIL + "concurrency = 2\n") as run:
        site.send("mail", *numbers(20, type="store"))
        run.wait_for(lambda: len(site.journal()) == 20)
    stored = site.python(
        "from work.models import Work\nprint(*(w.backend for w in Work.objects.all()), sep='\\n')"
    )
    lines = [line.split() for line in stored.splitlines()]
    assert len(lines) == 20
    assert {held for _, held in lines} == {"False"}


# The report


def report(run: Running, slot: str) -> dict:
    """Return what a process has in its bulletin, out of its own memory."""
    pid = run.slots()[slot]["pid"]
    for link in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "chansup-bulletin" in link:
            begin = link.split("-")[0]
            break
    else:
        raise AssertionError("no bulletin")
    end = link.split()[0].split("-")[1]
    with open(f"/proc/{pid}/map_files/{begin.lstrip('0')}-{end.lstrip('0')}", "r+b") as memory:
        bulletin = Bulletin(memory.fileno())
        document = bulletin.read()
        bulletin.close()
    assert document is not None
    found: dict = json.loads(document)
    return found


@pytest.mark.thorough
def test_what_is_counted(either: Project) -> None:
    with either.running('[workers.x]\nchannels = ["thumbnails", "mail"]\nconcurrency = 2\n') as run:
        assert set(report(run, "x.0")["channels"]) == {"thumbnails", "mail"}
        either.send("thumbnails", *numbers(20), {"number": 20, "fail": True})
        either.send("mail", {"number": 30, "seconds": 1000})
        run.wait_for(lambda: 30 in either.journal("begin"))

        def counts() -> dict:
            found: dict = report(run, "x.0")["channels"]
            return found

        run.wait_for(lambda: counts()["mail"]["in_flight"] == 1)
        run.wait_for(lambda: counts()["thumbnails"]["handled"] == 20)
        thumbnails, mail = counts()["thumbnails"], counts()["mail"]
        assert (thumbnails["failed"], thumbnails["in_flight"]) == (1, 0)
        assert sum(thumbnails["handling"]["counts"].values()) == 21
        assert sum(thumbnails["wait"]["counts"].values()) == 21
        assert (mail["handled"], sum(mail["wait"]["counts"].values())) == (0, 1)
        either.send("mail", {"number": 31, "seconds": 1000})
        run.wait_for(lambda: counts()["mail"]["in_flight"] == 2)
        either.send("mail", *numbers(7))
        either.send("thumbnails", *numbers(2))
        run.wait_for(lambda: counts()["mail"]["depth"] == 7)
        run.wait_for(lambda: counts()["thumbnails"]["depth"] == 2)
        assert counts()["mail"]["oldest"] > 0
        for pid in run.pids("x"):
            run.send_to(pid, 9)
