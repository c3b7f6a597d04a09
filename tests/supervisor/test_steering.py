"""The programs that pick a listener: interpreted here, and run by the kernel."""

import itertools
import socket
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chansup.supervisor.sockets import steering
from chansup.supervisor.sockets.steering import (
    Instruction,
    SteeringRefusedError,
    attach,
    program,
    weights,
)

pytestmark = pytest.mark.slow  # the interpreter makes no difference


def interpret(instructions, random):
    """Run a program as the kernel would; `random` is the word that it loads."""
    accumulator = place = 0
    for _ in range(len(instructions) + 1):
        code, jt, jf, k = instructions[place]
        assert 0 <= jt <= 255
        assert 0 <= jf <= 255
        assert 0 <= k < 2**32
        place += 1
        if code == steering.LOAD:
            assert k == steering.RANDOM
            accumulator = random
        elif code == steering.MODULO:
            assert k
            accumulator %= k
        elif code == steering.ADD:
            accumulator += k
        elif code == steering.JUMP:
            place += k
        elif code == steering.JUMP_IF_AT_LEAST:
            place += jt if accumulator >= k else jf
        elif code == steering.RETURN:
            return k
        elif code == steering.RETURN_A:
            return accumulator
        else:
            raise AssertionError(f"no such instruction: {code:#x}")
    raise AssertionError("the program does not end")


slots = st.lists(st.integers(0, 5000), unique=True, min_size=1, max_size=400)


@given(slots)
def test_picks_every_ready_listener_equally_often(ready):
    instructions = program(ready)
    picked = Counter(interpret(instructions, word) for word in range(2 * len(ready)))
    assert picked == dict.fromkeys(ready, 2)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 20)), unique_by=lambda pair: pair[0]))
def test_picks_in_proportion_to_the_weights(pairs):
    instructions = program([slot for slot, _ in pairs], [weight for _, weight in pairs])
    total = sum(weight for _, weight in pairs)
    picked = Counter(interpret(instructions, word) for word in range(total))
    expected = {slot: weight for slot, weight in pairs if weight}
    assert picked == expected
    if not expected:
        assert interpret(instructions, 7) == steering.NO_CHOICE


@settings(max_examples=20)
@given(st.integers(1, 1300), st.data())
def test_the_longest_programs_fit_and_find_their_way(count, data):
    gaps = data.draw(st.integers(2, 5))
    ready = [slot * gaps for slot in range(count)]
    instructions = program(ready)
    assert len(instructions) <= steering.MAX_LENGTH
    words = data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=50))
    assert [interpret(instructions, word) for word in words] == [ready[w % count] for w in words]


def test_common_cases_are_short():
    assert program([3]) == [Instruction(steering.RETURN, 0, 0, 3)]
    assert len(program(range(200))) == 4
    assert len(program(range(7, 90), [5] * 83)) == 4


def test_multiples_of_the_same_weights_make_the_same_program():
    assert program([0, 2, 5], [2, 4, 6]) == program([0, 2, 5], [1, 2, 3])


@pytest.mark.parametrize(
    ("ready", "given_weights"),
    [([1, 2], [1]), ([1], [-1]), ([-1], [1]), ([*range(0, 6000, 2)], None)],
)
def test_what_cannot_be_programmed_is_refused(ready, given_weights):
    with pytest.raises(ValueError, match=r"."):
        program(ready, given_weights)


@given(st.lists(st.integers(0, 10**7), max_size=300))
def test_weights_are_small_positive_and_favour_who_holds_less(held):
    given_weights = weights(held)
    assert all(1 <= weight <= 16 for weight in given_weights)
    by_held = sorted(zip(held, given_weights, strict=True))
    assert all(a[1] >= b[1] for a, b in itertools.pairwise(by_held))
    if held:
        assert max(given_weights) == 16


@given(st.integers(0, 10**7), st.integers(1, 300))
def test_equal_burdens_have_equal_weights(held, count):
    assert len(set(weights([held] * count))) == 1


def test_weights_are_gentle_with_a_fresh_process():
    fresh, *others = weights([0, 1000, 1000, 1000])
    assert 2 <= fresh / others[0] <= 4  # more, but not all of what comes
    assert weights([1, 0, 2, 1]) == [15, 16, 14, 15]  # hardly a difference


def test_weights_level_an_imbalance():
    held = [0, 900, 1000, 1100]
    for number in range(6000):
        picked = interpret(program(range(4), weights(held)), number * 2654435761 % 2**32)
        held[picked] += 1
    assert max(held) < 1.1 * sum(held) / 4


def group(count, host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets = []
    port = 0
    for _ in range(count):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(1024)
        sock.setblocking(False)
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def connections_in(sockets):
    """Return how many connections wait in each listener."""
    counts = []
    for sock in sockets:
        counts.append(0)
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                break
            counts[-1] += 1
    return counts


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_follows(host):
    sockets = group(6, host)
    address = sockets[0].getsockname()

    def spread(count, *arguments):
        attach(sockets[0], program(*arguments))
        for _ in range(count):
            socket.create_connection(address[:2]).close()
        return connections_in(sockets)

    try:
        assert spread(5, [4]) == [0, 0, 0, 0, 5, 0]
        picked = spread(90, [1, 2, 5])
        assert picked[0] == picked[3] == picked[4] == 0
        assert all(picked[slot] for slot in (1, 2, 5))
        weighted = spread(200, [0, 3], [1, 9])
        assert sum(weighted) == weighted[0] + weighted[3]
        assert weighted[3] > 2 * weighted[0]
        assert all(spread(200, []))  # none is ready: all wait for them
    finally:
        for sock in sockets:
            sock.close()


def test_the_kernel_takes_the_longest_program():
    ready = range(0, 2600, 2)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        attach(sock, program(ready))


def test_a_socket_without_a_group_is_refused():
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(SteeringRefusedError, match="kernel"):
        attach(sock, program([0]))


def test_steering_is_supported_here():
    assert steering.supported()
    assert not steering.supported(socket.AF_UNIX)
