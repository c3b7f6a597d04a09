"""How long a process that fails waits, whatever it does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.backoff import Backoff, delay

attempts = st.integers(0, 10**9)
chances = st.floats(0, 1, exclude_max=True)


@given(attempts, chances)
def test_never_negative_and_never_above_the_cap(attempt, chance):
    assert 0 < delay(attempt, base=0.1, factor=2, cap=30, jitter=0.25, random=lambda: chance) <= 30


@given(attempts, chances, chances)
def test_grows_until_the_cap_whatever_the_jitter(attempt, now, then):
    this = delay(attempt, base=0.1, factor=2, cap=30, jitter=0.25, random=lambda: now)
    following = delay(attempt + 1, base=0.1, factor=2, cap=30, jitter=0.25, random=lambda: then)
    assert following > this or following >= 30 * 0.75


def test_doubles_without_jitter():
    assert [delay(n, 0.1, 2, 30, 0) for n in (0, 1, 2, 8, 9, 100)] == pytest.approx(
        [0.1, 0.2, 0.4, 25.6, 30, 30]
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_any_history_gives_a_usable_delay(spells):
    # A clock that steps backwards makes for negative spells of health.
    backoff = Backoff()
    assert all(0 <= backoff.next_delay(spell) <= 30 for spell in spells)


def test_a_healthy_spell_ends_the_row():
    backoff = Backoff(jitter=0)
    delays = [backoff.next_delay(healthy_for) for healthy_for in (0, 0, 9.9, 10, 0)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.0, 0.2])


def test_the_first_failure_after_good_work_is_retried_at_once():
    backoff = Backoff(jitter=0)
    delays = [backoff.next_delay(healthy_for) for healthy_for in (1.0, 1.0, 1.0)]
    assert delays == pytest.approx([0.0, 0.2, 0.4])


def test_reset_ends_the_row():
    backoff = Backoff(jitter=0)
    backoff.next_delay()
    backoff.next_delay()
    assert backoff.failures == 2
    backoff.reset()
    assert backoff.next_delay() == pytest.approx(0.1)


@pytest.mark.parametrize(
    "wrong", [{"base": 0}, {"base": 31}, {"factor": 1}, {"jitter": 1}, {"jitter": -0.1}]
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Backoff(**wrong)
