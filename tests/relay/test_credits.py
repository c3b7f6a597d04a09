"""Credits: never below nothing, everybody gets on, and what a stream had comes back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from chansup.relay.credits import ASSURED, REPORTED, SHARED, WINDOW, Budget, Window
from chansup.relay.frames import MAX_PAYLOAD


class Credits(RuleBasedStateMachine):
    windows = Bundle("windows")

    @initialize(limit=st.sampled_from([1, MAX_PAYLOAD, 4 * MAX_PAYLOAD, SHARED]))
    def begin(self, limit: int) -> None:
        self.budget = Budget(limit)
        self.alive: list[Window] = []
        self.known: dict[int, int] = {}

    @rule(target=windows, size=st.sampled_from([0, WINDOW]))
    def stream_begins(self, size: int) -> Window:
        window = Window(self.budget, size)
        self.alive.append(window)
        self.known[id(window)] = 0
        return window

    @rule(window=windows, size=st.one_of(st.integers(0, 100), st.just(MAX_PAYLOAD)))
    def send_as_much_as_goes(self, window: Window, size: int) -> None:
        if window.is_open:
            window.sent(size)
            self.known[id(window)] += size

    @rule(window=windows)
    def send_until_it_is_closed(self, window: Window) -> None:
        while window.is_open:
            window.sent(MAX_PAYLOAD)
            self.known[id(window)] += MAX_PAYLOAD

    @rule(window=windows, share=st.floats(0, 1))
    def credit(self, window: Window, share: float) -> None:
        size = int(window.under_way * share)
        assert window.consumed(size)
        self.known[id(window)] -= size

    @rule(window=windows, too_much=st.integers(1, 2**32))
    def credit_for_what_was_never_sent(self, window: Window, too_much: int) -> None:
        used = self.budget.used
        assert not window.consumed(window.under_way + too_much)
        assert self.budget.used == used

    @rule(window=windows)
    def the_client_may_send(self, window: Window) -> None:
        window.size = WINDOW

    @rule(window=consumes(windows))
    def stream_ends(self, window: Window) -> None:
        others = sum(max(0, one.under_way - ASSURED) for one in self.alive if one is not window)
        window.close()
        window.close()
        self.alive.remove(window)
        assert self.budget.used == others

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "alive"):
            return
        for window in self.alive:
            assert 0 <= window.under_way == self.known[id(window)]
            assert window.under_way < max(window.size, 1) + MAX_PAYLOAD
        above = sum(max(0, window.under_way - ASSURED) for window in self.alive)
        assert self.budget.used == above
        # At most one frame too much, of each.
        assert above < self.budget.limit + MAX_PAYLOAD * (1 + len(self.alive))

    @invariant()
    def everybody_gets_on(self) -> None:
        for window in getattr(self, "alive", []):
            if window.size and window.under_way < ASSURED:
                assert window.is_open, "it waits for a slow neighbour"
            if not window.size:
                assert not window.is_open

    def teardown(self) -> None:
        for window in getattr(self, "alive", []):
            window.consumed(window.under_way)
            assert window.is_open or not window.size
        if hasattr(self, "budget"):
            assert self.budget.used == 0


TestCredits = Credits.TestCase
TestCredits.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_receiver_reports_before_the_sender_has_to_stop() -> None:
    # Else both would wait: the receiver for more to report, the sender for the report.
    assert REPORTED <= ASSURED <= WINDOW
    assert MAX_PAYLOAD <= ASSURED


def test_a_full_window_opens_again_with_one_report() -> None:
    for limit in (0, SHARED):
        window = Window(Budget(limit))
        while window.is_open:
            window.sent(MAX_PAYLOAD)
        stopped_at = window.under_way
        assert stopped_at == (WINDOW if limit else ASSURED)
        assert window.consumed(REPORTED)
        assert window.is_open


def test_one_stream_cannot_use_up_the_budget() -> None:
    budget = Budget()
    greedy = Window(budget)
    while greedy.is_open:
        greedy.sent(MAX_PAYLOAD)
    assert budget.used <= WINDOW < SHARED
