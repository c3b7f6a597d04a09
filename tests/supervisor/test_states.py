"""The table of states, driven with whatever can happen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.protocol.states import (
    ALIVE,
    TRANSITIONS,
    Happening,
    IllegalTransition,
    State,
    after,
)


def possible(state: State) -> list[Happening]:
    return [happening for (before, happening) in TRANSITIONS if before is state]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[State, Happening, State]]:
    state = State.GONE
    steps = []
    for _ in range(draw(st.integers(1, 40))):
        happening = draw(st.sampled_from(possible(state)))
        following = after(state, happening)
        steps.append((state, happening, following))
        state = following
    return steps


@given(histories())
def test_every_history_keeps_the_rules(history: list[tuple[State, Happening, State]]) -> None:
    for before, happening, following in history:
        if happening is Happening.SPAWNED:
            assert before not in ALIVE
            assert following is State.STARTING
        if happening is Happening.EXITED:
            assert before in ALIVE
            assert following is State.GONE
        if following is State.READY:
            assert before is State.STARTING
        if before is State.DRAINING:
            assert following is State.GONE  # nothing brings a draining process back


@given(st.sampled_from(State), st.sampled_from(Happening))
def test_what_is_not_in_the_table_is_refused(state: State, happening: Happening) -> None:
    if (state, happening) in TRANSITIONS:
        assert after(state, happening) is TRANSITIONS[state, happening]
    else:
        with pytest.raises(IllegalTransition, match=state.value):
            after(state, happening)


def test_every_state_can_be_left_and_reached() -> None:
    reached = {State.GONE}
    while True:
        more = {TRANSITIONS[state, happening] for state in reached for happening in possible(state)}
        if more <= reached:
            break
        reached |= more
    assert reached == set(State)
    for state in State:
        assert possible(state)
