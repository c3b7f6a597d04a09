"""`chansup latency`: what two looks at the counters say, and how the command says it."""

import json
import re
from typing import Any

import pytest

from chansup.cli.latency.comparison import NO_DEPTH, NO_WAITS, ChannelLatency, Latency, compare
from chansup.cli.latency.measure import measure, measure_again_and_again
from chansup.cli.latency.verdict import rates
from chansup.protocol.hub_report import HubReport
from chansup.protocol.status import ConsumerPool, Consumption
from tests.control.consumed import after, before, consumption, counts, pool

from .conftest import Site, interrupt

pytestmark = pytest.mark.slow  # the interpreter makes no difference


def between(first: ConsumerPool, second: ConsumerPool, **hubs: HubReport) -> Latency:
    return compare(
        consumption(100.0, first, hub=hubs.get("hub")),
        consumption(110.0, second, hub=hubs.get("later")),
    )


def only(first: ConsumerPool, second: ConsumerPool, **hubs: HubReport) -> ChannelLatency:
    rows = between(first, second, **hubs).channels
    assert len(rows) == 1
    return rows[0]


def images(ready: int = 2, **counted: Any) -> ConsumerPool:
    return pool("images", ready, images=counts(**counted))


def said(row: ChannelLatency) -> tuple[str, str]:
    return row.verdict, row.words


def test_what_is_measured() -> None:
    first = images(handled=100, each=5.0, waited=9.0, in_flight=1, depth=7, oldest=1.0)
    second = images(handled=100, each=5.0, waited=9.0, in_flight=2, depth=4, oldest=0.5, failed=3)
    counted = second.channels["images"]
    for _ in range(90):
        counted.handling.add(0.1)
        assert counted.wait is not None
        counted.wait.add(0.01)
    for _ in range(10):
        counted.handling.add(1.0)
    counted.handled += 100
    row = only(first, second)
    assert (row.messages, row.failed, row.per_second) == (103, 3, 10.3)
    assert (row.in_flight, row.capacity, row.depth, row.depth_change, row.oldest) == (2, 2, 4, -3, 0.5)  # fmt: skip
    assert row.handling is not None
    assert row.wait is not None
    found = [row.handling.p50, row.handling.p90, row.handling.p99, row.handling.max, row.wait.p50]
    assert found == pytest.approx([0.1, 1.0, 5.0, 5.0, 0.01], rel=0.08)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "words"),
    [
        ({}, {}, "idle", "no messages came"),
        ({}, {"handled": 100, "each": 0.1}, "keeps_up", "keeps up, 50% busy"),
        # A queue that only sways.
        ({"depth": 3}, {"handled": 100, "each": 0.1, "depth": 6}, "keeps_up", "keeps up, 50% busy"),
        ({}, {"handled": 1, "each": 0.1, "depth": 1}, "keeps_up", "keeps up, 0% busy"),
        ({"depth": 60}, {"handled": 95, "each": 0.2, "depth": 9}, "keeps_up",
         "keeps up: works off what waits, 95% busy"),
        ({"depth": 60}, {"handled": 95, "each": 0.2, "depth": 59}, "keeps_up",
         "keeps up, with nothing to spare"),
        ({"depth": 20}, {"handled": 90, "each": 0.222, "depth": 50}, "falls_behind",
         "falls behind: 12 messages/s arrive, 9 are handled; 3 processes would do"),
        # In hand and not done counts as arrived.
        ({"depth": 0}, {"handled": 1, "each": 10.0, "depth": 2, "in_flight": 2}, "falls_behind",
         "falls behind: 30 messages/min arrive, 6 are handled; 6 processes would do"),
        # They have time left: more of them would not help.
        ({"depth": 0}, {"handled": 10, "each": 0.01, "depth": 90}, "falls_behind",
         "falls behind: 10 messages/s arrive, 1 are handled"),
        ({"depth": 0}, {"depth": 5}, "falls_behind",
         "falls behind: 30 messages/min arrive, 0 are handled"),
        ({"depth": 5}, {"depth": 5}, "falls_behind",
         "falls behind: 5 wait, and nobody takes them"),
        ({"depth": 5, "in_flight": 2}, {"depth": 5, "in_flight": 2}, "falls_behind",
         ("falls behind: 5 wait, and none was done within 10 s; "
         "if one takes longer than that, measure longer")),
        ({"in_flight": 2}, {"in_flight": 2}, "unclear", "none was done within 10 s: measure longer"),
        ({"depth": None}, {"depth": None, "handled": 40, "each": 0.1}, "keeps_up",
         "keeps up, 20% busy"),
        ({"depth": None}, {"depth": None, "handled": 100, "each": 0.2}, "unclear",
         "busy all the time: whether others wait cannot be told"),
        ({"depth": None}, {"depth": None}, "idle", "no messages came"),
    ],
)  # fmt: skip
def test_verdicts(first: Any, second: Any, verdict: str, words: str) -> None:
    result = between(images(**first), images(**second))
    assert said(result.channels[0]) == (verdict, words)
    assert result.is_well is (verdict != "falls_behind")


def test_the_example_of_the_docs_is_met_by_real_numbers() -> None:
    """Three processes of the same speed have room for 12 messages a second, two do not."""
    row = only(images(2, depth=20), images(2, handled=90, each=2 / 9, depth=50))
    number = int(re.findall(r"(\d+) processes would do", row.words)[0])
    assert (number - 1) * 4.5 < 12 < number * 4.5


def test_nobody_consumes_it() -> None:
    one = only(images(2), images(0, depth=12, oldest=4.0))
    assert said(one) == (
        "not_consumed",
        "nobody consumes it: 0 of 1 processes of images are ready; 12 wait",
    )
    result = between(images(0), images(0))
    assert result.channels[0].verdict == "not_consumed"
    assert not result.is_well


def test_a_pool_that_never_told_its_channels() -> None:
    row = only(pool("media", 0), pool("media", 0, desired=2))
    assert (row.channel, row.verdict) == ("", "not_consumed")
    assert row.words == "nobody consumes it: 0 of 2 processes are ready"
    assert only(pool("media", 2), pool("media", 2)).verdict == "unclear"


def test_two_pools_of_one_channel_have_one_verdict() -> None:
    def look(taken: float, **counted: Any) -> Any:
        pools = [pool(name, 1, images=counts(**counted)) for name in ("a", "b")]
        return consumption(taken, *pools)

    result = compare(look(100.0, depth=20), look(110.0, handled=45, each=0.222, depth=50))
    assert {one.words for one in result.channels} == {
        "falls behind: 12 messages/s arrive, 9 are handled; 2 processes of a would do"
    }
    # The same name on another layer is another channel.
    other = pool("c", 1, layer="other", images=counts(depth=0))
    first, second = look(100.0, depth=20), look(110.0, handled=45, each=0.222, depth=50)
    first.pools.append(other)
    second.pools.append(other)
    assert compare(first, second).channels[2].words == "no messages came"


def test_channels_of_one_pool_share_its_processes() -> None:
    first = pool("media", 2, images=counts(depth=20), mails=counts())
    second = pool("media", 2, images=counts(45, 0.222, depth=50), mails=counts(45, 0.222))
    rows = {row.channel: row for row in between(first, second).channels}
    assert rows["images"].words == (
        "falls behind: 7.5 messages/s arrive, 4.5 are handled; 3 processes would do"
    )
    assert rows["mails"].words == "keeps up, 100% busy"


def test_messages_that_were_refused_are_arrivals_too() -> None:
    hub, later = HubReport(), HubReport(dropped={"full": {"ima*": 30}, "gone": {"ima*": 50}})
    first = images(2, depth=100)
    second = images(2, handled=90, each=0.222, depth=100)
    result = between(first, second, hub=hub, later=later)
    assert result.channels[0].words == (
        "falls behind: 12 messages/s arrive, 9 are handled; 3 processes would do"
    )
    assert result.notes == [
        '30 messages for channels of the pattern "ima*" were refused, because the channel was full.'
    ]
    # Dropped for any channel: only one that is full can be meant.
    later = HubReport(dropped={"full": {"*": 30}})
    full = between(first, second, later=later)
    assert full.channels[0].words == (
        "falls behind: 9 messages/s are handled, up to 3 are refused; 3 processes would do"
    )
    later = HubReport(dropped={"full": {"*": 1}})
    note = '1 message for channels of the pattern "*" was refused, because the channel was full.'
    assert between(first, second, later=later).notes == [note]
    calm = between(images(2), images(2, handled=10, each=0.1), later=later)
    assert calm.channels[0].verdict == "keeps_up"
    assert len(calm.notes) == 1


def test_what_the_layer_does_not_tell_is_noted() -> None:
    result = between(
        images(waited=None, depth=None), images(handled=3, each=0.1, waited=None, depth=None)
    )
    assert result.channels[0].wait is None
    assert result.notes == [NO_WAITS, NO_DEPTH]


def test_a_restart_in_between_is_no_flood() -> None:
    row = only(images(handled=500, each=0.1), images(handled=2, each=0.1))
    assert (row.messages, row.failed) == (0, 0)


def test_only_one_channel() -> None:
    result = compare(before(), after(), "resize")
    assert [(row.pool, row.channel) for row in result.channels] == [("media", "resize")]


@pytest.mark.parametrize(
    ("first", "second", "seconds", "expected"),
    [
        (120, 90, 10, ("12", "9", "s")),
        (15, 0, 10, ("1.5", "0", "s")),
        (2, 1, 10, ("12", "6", "min")),
        (0, 0, 10, ("0", "0", "min")),
        (123_456, 1, 10, ("12346", "0.1", "s")),
    ],
)
def test_rates(first: int, second: int, seconds: float, expected: tuple[str, str, str]) -> None:
    assert rates(first, second, seconds) == expected


# The command


def test_all_is_well(site: Site) -> None:
    with site.supervisor("measured"):
        answer = site.chansup("latency", "--seconds", "1")
    assert answer.returncode == 0, answer.stderr
    assert "\x1b" not in answer.stdout
    for expected in (
        r"^ +p50 +p90 +p99 +max$",
        r"^resize \(media\)  keeps up, 24% busy$",
        r"^  waited +2\d ms +2\d ms +2\d ms +2\d ms$",
        r"^  took +\d\d ms +\d\d ms +\d\d ms +\d\d ms$",
        r"^  95 done \(9\.5/s\), 2 of them failed, 1 of 2 in hand, 0 waiting$",
        r"^mails \(media\)  no messages came\nresize",
        r"^reports  keeps up, with nothing to spare$",
        r"2 of 2 in hand, 20 waiting, the oldest for 5\.4 s$",
        r"^measured for 10 s$",
    ):
        assert re.search(expected, answer.stdout, re.MULTILINE), (expected, answer.stdout)


def test_falling_behind_is_exit_code_1(site: Site) -> None:
    with site.supervisor("behind"):
        answer = site.chansup("latency", "-s", "1", "--json")
    assert (answer.returncode, answer.stderr) == (1, "")
    document = json.loads(answer.stdout)
    rows = {row["channel"]: row for row in document["channels"]}
    assert rows["reports"]["verdict"] == "falls_behind"
    assert rows["reports"]["depth_change"] == 30
    assert rows["resize"]["verdict"] == "keeps_up"
    assert rows["resize"]["wait"]["p99"] == pytest.approx(0.02, rel=0.08)
    assert rows["mails"]["handling"] is None


def test_one_channel_alone(site: Site) -> None:
    with site.supervisor("behind"):
        answer = site.chansup("latency", "resize", "-s", "1", "--json")
    assert answer.returncode == 0
    assert [row["channel"] for row in json.loads(answer.stdout)["channels"]] == ["resize"]


def test_mistakes_are_explained(site: Site) -> None:
    assert site.chansup("latency").returncode == 3
    with site.supervisor("measured"):
        answer = site.chansup("latency", "nope")
        assert answer.returncode == 2
        assert answer.stderr == (
            "chansup: no channel worker consumes 'nope'; there are mails, reports, resize\n"
        )
        assert site.chansup("latency", "--seconds", "0").returncode == 2
    with site.supervisor():
        answer = site.chansup("latency")
        assert answer.returncode == 2
        assert "this site has no channel workers: add a table [workers.NAME]" in answer.stderr


class Answers:
    """A client that gives out what a test put in."""

    def __init__(self, *given: Consumption) -> None:
        self._given = list(given)

    def consumption(self) -> Consumption:
        return self._given.pop(0)


def test_an_interrupt_shows_what_there_is() -> None:
    def interrupted(passed: float) -> None:
        raise KeyboardInterrupt

    client: Any = Answers(before(), after())
    measured = measure(client, 600.0, None, interrupted)
    assert [row.words for row in measured.channels if row.channel == "resize"] == [
        "keeps up, 24% busy"
    ]


def test_watching_measures_each_time_what_came_since() -> None:
    client: Any = Answers(before(), after(), after(behind=True))
    each = measure_again_and_again(client, 0.0)
    first, second = next(each), next(each)
    assert [row.messages for row in first.channels] == [0, 95, 90]
    assert [row.messages for row in second.channels] == [0, 0, 0]


def test_watching_goes_on_until_interrupted(site: Site) -> None:
    with site.supervisor("behind"):
        process = site.started("latency", "--watch", "--seconds", "1", "--json")
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["channels"]
        interrupt(process)
        assert process.wait(30) == 130
        assert process.communicate()[1].strip() == ""
        plain = site.started("latency", "--watch", "--seconds", "1")
        assert plain.stdout is not None
        while "measured for" not in plain.stdout.readline():
            pass
        interrupt(plain)
        assert plain.wait(30) == 130
        assert plain.communicate()[1].strip() == ""
    assert site.chansup("latency", "--watch").returncode == 3


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_it_fits_the_terminal(site: Site, columns: int) -> None:
    with site.supervisor("behind"):
        code, shown = site.on_terminal("latency", "-s", "1", columns=columns)
    assert code == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    lines = re.split(r"[\r\n]+", text)
    assert max(map(len, lines)) <= columns
    assert "measuring" in text
    assert "falls behind: 12 messages/s arrive" in " ".join(text.split())
    assert "2 of 2 in hand, 50 waiting (30 more than before)" in " ".join(text.split())


def test_completion_offers_channels(site: Site) -> None:
    complete = {"_CHANSUP_COMPLETE": "bash_complete", "COMP_WORDS": "chansup latency r", "COMP_CWORD": "2"}  # fmt: skip
    with site.supervisor("measured"):
        answer = site.chansup(environ=complete)
    assert answer.stdout.split() == ["plain,reports", "plain,resize"]
    assert site.chansup(environ=complete).stdout.strip() == ""


# The same in `status`


def test_status_tells_of_channels_and_the_hub(site: Site) -> None:
    with site.supervisor("measured"):
        shown = site.chansup("status").stdout
        document = json.loads(site.chansup("status", "--json").stdout)
    for expected in (
        r"^hub     13 messages waiting, the oldest for 3\.4 s; 1\.43 MiB of 256 MiB used; 2 refused",
        r"^channel resize \(thumbnails\): 12 waiting, the oldest for 3\.4 s; 2 in hand; 240 done ",
        r" in the last minute, 3 of them failed, 95 % waited at most 12 ms$",
        r"^channel mails \(thumbnails\): 0 in hand$",
    ):
        assert re.search(expected, shown, re.MULTILINE), (expected, shown)
    assert document["pools"][0]["layer"]["messages"] == 13
    assert document["pools"][2]["channels"][0]["waiting"] == 12


def test_a_pool_of_many_channels_shows_the_busiest() -> None:
    from chansup.protocol.status import MOST_CHANNELS, ChannelStatus, busiest

    many = [ChannelStatus(f"c{n:02}", n % 7, None, 0, n, 0, None) for n in range(30)]
    shown, left_out = busiest(many)
    assert (len(shown), left_out) == (MOST_CHANNELS, 30 - MOST_CHANNELS)
    assert min(one.waiting or 0 for one in shown) >= 4
    assert [one.name for one in shown] == sorted(one.name for one in shown)
    assert busiest(many[:3]) == (many[:3], 0)
