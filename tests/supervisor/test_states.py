"""The table of states, driven with whatever can happen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.protocol.states import (
    ALIVE,
    TRANSITIONS,
    Event,
    IllegalTransitionError,
    State,
    after,
)


def possible(state: State) -> list[Event]:
    return [event for (before, event) in TRANSITIONS if before is state]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[State, Event, State]]:
    state = State.GONE
    steps = []
    for _ in range(draw(st.integers(1, 40))):
        event = draw(st.sampled_from(possible(state)))
        following = after(state, event)
        steps.append((state, event, following))
        state = following
    return steps


@given(histories())
def test_every_history_keeps_the_rules(history: list[tuple[State, Event, State]]) -> None:
    for before, event, following in history:
        if event is Event.SPAWNED:
            assert before not in ALIVE
            assert following is State.STARTING
        if event is Event.EXITED:
            assert before in ALIVE
            assert following is State.GONE
        if following is State.READY:
            assert before is State.STARTING
        if before is State.DRAINING:
            assert following is State.GONE  # nothing brings a draining process back


@given(st.sampled_from(State), st.sampled_from(Event))
def test_what_is_not_in_the_table_is_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransitionError, match=state.value):
            after(state, event)


def test_every_state_can_be_left_and_reached() -> None:
    reached = {State.GONE}
    while True:
        more = {TRANSITIONS[state, event] for state in reached for event in possible(state)}
        if more <= reached:
            break
        reached |= more
    assert reached == set(State)
    for state in State:
        assert possible(state)
