"""How long something runs, whatever is done to the wall clock."""

import time

import pytest

from chansup.clock import Moment


@pytest.mark.parametrize("jump", [-86_400.0, -3600.0, 2.0, 3600.0, 31_536_000.0])
def test_a_moment_moves_with_the_clock(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    now = time.time
    moment = Moment()
    before = moment.wall()
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    assert time.time() - moment.wall() == pytest.approx(0.0, abs=0.5)
    assert moment.wall() - before == pytest.approx(jump, abs=0.5)


def test_a_moment_stays_the_same_number_while_the_clock_runs_on() -> None:
    moment = Moment()
    assert moment.wall() == moment.wall()
