"""Who gets which WebSocket, and when: by tables and by any order of events, with a clock by hand."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from chansup.supervisor.carry.adoption import MOST_UNDER_WAY, Adoptions
from chansup.supervisor.carry.held import Held, Segment
from chansup.supervisor.carry.quarantine import LONGEST, MAX_DEATHS, Quarantine

MEMORY = Segment(1, -1)


@dataclass
class One:
    """A process that may adopt."""

    load: int = 0
    under_way: int = 0
    is_deaf: bool = False
    given: list[Held] = field(default_factory=list)


class Site:
    """All that wait, and a clock."""

    def __init__(self, *adopters: One) -> None:
        self.ended: list[Held] = []
        self.quarantine = Quarantine()
        self.adoptions: Adoptions[One] = Adoptions(self.quarantine, self._give, self.ended.append)
        self.adoptions.adopters = adopters
        self.now = 100.0

    def _give(self, held: Held, to: One) -> bool:
        if to.is_deaf:
            return False
        to.given.append(held)
        to.load += 1
        to.under_way += 1
        return True

    def orphans(self, number: int, deaths: int = 0, spread: float = 0.0) -> list[Held]:
        found = [Held(-1, MEMORY, index) for index in range(number)]
        for held in found:
            held.deaths, held.orphaned_at = deaths, self.now
        self.adoptions.put(found, self.now, spread)
        return found

    def run(self, seconds: float = 0.0) -> float | None:
        self.now += seconds
        return self.adoptions.run(self.now)


def test_each_goes_to_the_emptiest():
    a, b, c = One(load=10), One(load=4), One(load=0)
    site = Site(a, b, c)
    site.orphans(10)
    assert site.run() is None
    assert (a.load, b.load, c.load) == (10, 7, 7)


def test_those_of_a_dead_process_are_spread_over_time():
    one = One()
    site = Site(one)
    site.orphans(100, spread=0.5)
    site.run()
    assert len(one.given) == 1
    site.run(0.2495)
    assert len(one.given) == 50
    assert site.run(0.01) is not None
    site.run(1.0)
    assert len(one.given) == 100
    assert site.run() is None


def test_a_process_that_cannot_be_told_anything_is_passed_over():
    deaf, other = One(is_deaf=True), One(load=50)
    site = Site(deaf, other)
    site.orphans(10)
    site.run()
    assert (len(deaf.given), len(other.given)) == (0, 10)


def test_a_process_is_given_what_it_can_answer():
    one = One()
    site = Site(one)
    site.orphans(MOST_UNDER_WAY + 5)
    assert site.run() is not None
    assert len(one.given) == MOST_UNDER_WAY
    one.under_way -= 2
    site.run()
    assert len(one.given) == MOST_UNDER_WAY + 2


def test_those_that_wait_too_long_end():
    site = Site()
    site.adoptions.timeout = 15.0
    first = site.orphans(2)
    site.run(10.0)
    site.orphans(1)
    assert site.ended == []
    site.run(5.0)
    assert sorted(map(id, site.ended)) == sorted(map(id, first))
    site.adoptions.is_hopeful = False
    site.run()
    assert len(site.ended) == 3


def test_suspects_are_tried_one_after_the_other():
    one = One()
    site = Site(one)
    a, b, c = site.orphans(3, deaths=2)
    innocent = site.orphans(5)
    site.run()
    assert one.given == [a, *innocent]
    site.quarantine.leave(a)  # it was cleared, or has killed again
    site.run()
    assert one.given[6:] == [b]
    site.run(LONGEST - 0.01)
    assert one.given[7:] == []
    site.run(0.02)  # one that has killed nobody for so long does not hold up the next one
    assert one.given[7:] == [c]


def test_what_is_known_as_poison_need_not_wait_for_its_turn():
    one = One()
    site = Site(one)
    (suspect,) = site.orphans(1, deaths=2)
    (poison,) = site.orphans(1, deaths=MAX_DEATHS)
    site.run()
    assert one.given == [suspect, poison]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("orphans"), st.integers(1, 5), st.integers(0, 3)),
            st.tuples(st.just("run"), st.floats(0, 20)),
            st.tuples(st.just("deaf"), st.integers(0, 2)),
            st.tuples(st.just("answer"), st.integers(0, 2)),
            st.tuples(st.just("go"), st.integers(0, 2)),
        ),
        max_size=60,
    )
)
def test_whatever_happens_nothing_is_lost_and_nothing_goes_to_two(events):
    ones = [One(), One(), One()]
    site = Site(*ones)
    put = 0
    for event in events:
        match event:
            case ("orphans", number, deaths):
                site.orphans(number, deaths, spread=0.3)
                put += number
            case ("run", seconds):
                site.run(seconds)
            case ("deaf", place):
                ones[place].is_deaf ^= True
            case ("answer", place):
                ones[place].under_way = 0
            case ("go", place):
                left = [one for one in site.adoptions.adopters if one is not ones[place]]
                site.adoptions.adopters = left or ones
        placed = [held for one in ones for held in one.given] + site.ended
        assert len(set(map(id, placed))) == len(placed)
        assert len(placed) + len(site.adoptions) == put
