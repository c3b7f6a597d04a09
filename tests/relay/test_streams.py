"""The courses of streams: every frame in every state moves it on as the table says, or is refused."""

from itertools import pairwise, product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chansup.relay.frames import AGAIN, END, FINISHED, MORE, TEXT, FrameError, Kind
from chansup.relay.interface import phases
from chansup.relay.interface.phases import TRANSITIONS, Event, Phase
from chansup.relay.streams import TO_INTERFACE, TO_WORKER, State, Table, advance

KINDS = sorted(value for name, value in vars(Kind).items() if name.isupper())
STATES = sorted(value for name, value in vars(State).items() if name.isupper())
NAMES = {value: name for name, value in vars(State).items() if name.isupper()}
TABLES = {"to worker": TO_WORKER, "to interface": TO_INTERFACE}
BEGINNINGS = {
    "to worker": {State.UPLOADING, State.UPLOADED, State.ATTACHED},
    "to interface": {State.WAITING, State.CONNECTING},
}
ENDS = {"to worker": State.GONE, "to interface": State.OVER}

tables = pytest.mark.parametrize("direction", TABLES)


def reachable(table: Table, beginnings: set[int]) -> set[int]:
    found, new = set(), set(beginnings)
    while new:
        found |= new
        new = {after for state in new for after in table.get(state, {}).values()} - found
    return found


@tables
def test_every_frame_in_every_state_is_in_the_table_or_refused(direction: str) -> None:
    table = TABLES[direction]
    for state, kind, flags in product(STATES, range(256), (0, END, END | FINISHED, TEXT | AGAIN)):
        entry = table.get(state, {}).get(kind | 0x100 if flags & END else kind)
        if entry is None:
            with pytest.raises(FrameError, match=f"a frame of kind {kind} in state {state}"):
                advance(table, state, kind, flags)
        else:
            assert advance(table, state, kind, flags) == entry


@tables
def test_flags_other_than_end_change_nothing(direction: str) -> None:
    table = TABLES[direction]
    for state, moves in table.items():
        for kind, after in moves.items():
            end = END if kind & 0x100 else 0
            for flags in (MORE, TEXT, AGAIN, FINISHED, 0xFE):
                assert advance(table, state, kind & 0xFF, flags & ~END | end) == after


@tables
def test_every_state_is_reached_and_leads_to_the_end(direction: str) -> None:
    table, beginnings = TABLES[direction], BEGINNINGS[direction]
    all_states = set(table) | {after for moves in table.values() for after in moves.values()}
    assert reachable(table, beginnings) == all_states
    for state in all_states:
        assert ENDS[direction] in reachable(table, {state}), NAMES[state]


def test_each_state_belongs_to_one_direction() -> None:
    known = [
        set(table) | {after for moves in table.values() for after in moves.values()}
        for table in TABLES.values()
    ]
    assert not known[0] & known[1]
    assert known[0] | known[1] == set(STATES)


def test_nothing_comes_after_the_end() -> None:
    assert State.OVER not in TO_INTERFACE
    assert set(TO_WORKER[State.GONE]) == {Kind.CREDIT}  # that was under way


@pytest.mark.parametrize("state", [State.UPLOADING, State.UPLOADED, State.ATTACHED, State.LEAVING])
def test_the_client_may_go_at_any_time_and_only_once(state: int) -> None:
    assert advance(TO_WORKER, state, Kind.DISCONNECT, 0) == State.GONE
    with pytest.raises(FrameError):
        advance(TO_WORKER, State.GONE, Kind.DISCONNECT, 0)


def test_the_app_may_return_at_any_time() -> None:
    for state in TO_INTERFACE:
        assert advance(TO_INTERFACE, state, Kind.DONE, 0) == State.OVER


@pytest.mark.parametrize(
    "course",
    [
        [(Kind.BODY, END), (Kind.BODY, 0)],
        [(Kind.BODY, END), (Kind.BODY, END)],
        [(Kind.DISCONNECT, 0), (Kind.BODY, 0)],
        [(Kind.MESSAGE, 0)],
        [(Kind.LEAVE, 0)],
        [(Kind.RESPONSE, END)],
    ],
)
def test_bad_order_of_a_request_is_refused_at_its_last_frame(course: list[tuple[int, int]]) -> None:
    check_that_the_last_is_refused(TO_WORKER, State.UPLOADING, course)


@pytest.mark.parametrize(
    "course",
    [
        [(Kind.BODY, 0)],
        [(Kind.START, 0), (Kind.START, 0)],
        [(Kind.START, 0), (Kind.RESPONSE, END)],
        [(Kind.RESPONSE, 0)],
        [(Kind.RESPONSE, END), (Kind.RESPONSE, END)],
        [(Kind.RESPONSE, END), (Kind.BODY, END)],
        [(Kind.START, 0), (Kind.BODY, END), (Kind.BODY, END)],
        [(Kind.START, 0), (Kind.RECEIVED, 0)],
        [(Kind.DONE, 0), (Kind.DONE, 0)],
        [(Kind.ACCEPT, 0)],
        [(Kind.MESSAGE, 0)],
    ],
)
def test_bad_order_of_a_response_is_refused_at_its_last_frame(
    course: list[tuple[int, int]],
) -> None:
    check_that_the_last_is_refused(TO_INTERFACE, State.WAITING, course)


@pytest.mark.parametrize(
    "course",
    [
        [(Kind.MESSAGE, 0)],
        [(Kind.CONSUMED, 0)],
        [(Kind.ACCEPT, 0), (Kind.ACCEPT, 0)],
        [(Kind.ACCEPT, 0), (Kind.START, 0)],
        [(Kind.CLOSE, 0), (Kind.ACCEPT, 0)],
        [(Kind.CLOSE, 0), (Kind.CLOSE, 0)],
        [(Kind.ACCEPT, 0), (Kind.CLOSE, 0), (Kind.MESSAGE, 0)],
        [(Kind.START, 0), (Kind.ACCEPT, 0)],
        [(Kind.START, 0), (Kind.BODY, END), (Kind.BODY, 0)],
        [(Kind.DONE, 0), (Kind.CONSUMED, 0)],
    ],
)
def test_bad_order_of_a_websocket_is_refused_at_its_last_frame(
    course: list[tuple[int, int]],
) -> None:
    check_that_the_last_is_refused(TO_INTERFACE, State.CONNECTING, course)


def check_that_the_last_is_refused(table: Table, state: int, course: list[tuple[int, int]]) -> None:
    for frame in course[:-1]:
        state = advance(table, state, *frame)
    with pytest.raises(FrameError):
        advance(table, state, *course[-1])


class Walk(RuleBasedStateMachine):
    """A peer that sends anything: what is refused leaves the state as it was."""

    @initialize(direction=st.sampled_from(sorted(TABLES)), data=st.data())
    def begin(self, direction: str, data: st.DataObject) -> None:
        self.direction = direction
        self.state = data.draw(st.sampled_from(sorted(BEGINNINGS[direction])))
        self.is_over = False

    @rule(kind=st.sampled_from(KINDS), flags=st.integers(0, 127))
    def anything(self, kind: int, flags: int) -> None:
        table = TABLES[self.direction]
        try:
            after = advance(table, self.state, kind, flags)
        except FrameError:
            return
        assert not (self.is_over and kind != Kind.CREDIT)
        self.state = after
        self.is_over = after == ENDS[self.direction]

    @rule(data=st.data())
    def what_may_come(self, data: st.DataObject) -> None:
        table = TABLES[self.direction]
        moves = sorted(table.get(self.state, {}))
        if moves:
            kind = data.draw(st.sampled_from(moves))
            self.state = advance(table, self.state, kind & 0xFF, END if kind & 0x100 else 0)
            self.is_over = self.state == ENDS[self.direction]

    @invariant()
    def the_end_is_ahead(self) -> None:
        if hasattr(self, "state"):
            assert ENDS[self.direction] in reachable(TABLES[self.direction], {self.state})


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


# The life of a WebSocket in the interface


def test_every_phase_is_reached_and_leads_to_the_end() -> None:
    def from_(phase: Phase) -> set[Phase]:
        found, new = set(), {phase}
        while new:
            found |= new
            new = {after for one in new for after in TRANSITIONS[one].values()} - found
        return found

    assert set(TRANSITIONS) == set(Phase)
    assert from_(Phase.SEEKING) == set(Phase)
    for phase in Phase:
        assert Phase.OVER in from_(phase)
    assert TRANSITIONS[Phase.OVER] == {}


def test_every_happening_happens() -> None:
    assert {one for moves in TRANSITIONS.values() for one in moves} == set(Event)


def test_a_websocket_may_end_in_every_phase_and_its_worker_may_die_wherever_it_has_one() -> None:
    for phase, moves in TRANSITIONS.items():
        assert (Event.ENDED in moves) == (phase is not Phase.OVER)
        assert (Event.WORKER_DIED in moves) == (phase in phases.HAS_WORKER)
        assert (Event.FOUND in moves) == (phase in phases.NEEDS_WORKER)


def test_the_groups_of_phases_agree_with_the_course() -> None:
    assert not phases.HAS_WORKER & phases.NEEDS_WORKER
    assert phases.HAS_WORKER | phases.NEEDS_WORKER | {Phase.OVER} == set(Phase)
    assert phases.PAUSED < phases.OPEN_FOR_CLIENT
    for before, moves in TRANSITIONS.items():
        for event, after in moves.items():
            if after is Phase.OVER:
                continue
            if event is Event.ACCEPTED:
                assert after is Phase.OPEN
            elif before in phases.OPEN_FOR_CLIENT:  # the client never notices
                assert after in phases.OPEN_FOR_CLIENT
            else:
                assert after not in phases.OPEN_FOR_CLIENT


def test_nothing_goes_to_open_but_by_being_accepted_there() -> None:
    for before, after in pairwise([Phase.BETWEEN, Phase.REJOINING, Phase.OPEN]):
        assert after in TRANSITIONS[before].values()
    assert Phase.OPEN not in TRANSITIONS[Phase.BETWEEN].values()
