"""Which listener of an SO_REUSEPORT group gets a new connection: classic BPF programs.

The kernel runs the program once for every new connection; what it returns is the index of a
listener in the order in which they began to listen. No privilege is needed. Sources: socket(7) on
SO_ATTACH_REUSEPORT_CBPF, bpf(4) and ``linux/filter.h`` for the instructions.
"""

import ctypes
import math
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from chansup.errors import ChansupError

MAX_LENGTH = 4096  # instructions, BPF_MAXINSNS
SO_ATTACH_REUSEPORT_CBPF = 51

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS: A = word at k; some k above the packet are the kernel's
LOAD_HALF = 0x28  # BPF_LD | BPF_H | BPF_ABS
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: k from here on is a place in the packet
MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K: A %= k
ADD = 0x04  # BPF_ALU | BPF_ADD | BPF_K: A += k
JUMP = 0x05  # BPF_JMP | BPF_JA: skip k instructions
JUMP_IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K: skip jt instructions if A >= k, else jf
RETURN = 0x06  # BPF_RET | BPF_K: return k
RETURN_A = 0x16  # BPF_RET | BPF_A
RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: a random word

NO_CHOICE = 0xFFFFFFFF  # no listener has this index; the kernel then picks by its own hash
_MAX_SKIP = 255  # of a conditional jump


class Instruction(NamedTuple):
    """One ``struct sock_filter``."""

    code: int
    jt: int  # instructions to skip if the condition holds
    jf: int  # and if it does not
    k: int


class SteeringRefusedError(ChansupError):
    """The kernel takes no steering program."""


def program(ready: Sequence[int], weights: Sequence[int] | None = None) -> list[Instruction]:
    """Return a program that picks at random among the listeners `ready`.

    Listener ``ready[i]`` is picked ``weights[i]`` times in ``sum(weights)``, or all equally often.
    With none ready (or all weights 0) the kernel spreads over the whole group. Raises ValueError if
    the program would be too long: that takes more than about 1,300 listeners.
    """
    if weights is None:
        weights = [1] * len(ready)
    if len(weights) != len(ready):
        raise ValueError(f"{len(weights)} weights for {len(ready)} listeners")
    if any(weight < 0 for weight in weights) or any(index < 0 for index in ready):
        raise ValueError("neither weights nor listeners can be negative")
    picks = [(index, weight) for index, weight in zip(ready, weights, strict=True) if weight]
    if not picks:
        return [Instruction(RETURN, 0, 0, NO_CHOICE)]
    divisor = math.gcd(*(weight for _, weight in picks))
    indexes = [index for index, _ in picks]
    ends: list[int] = []  # ends[i]: random numbers below it, and not below ends[i - 1], pick i
    for _, weight in picks:
        ends.append((ends[-1] if ends else 0) + weight // divisor)
    if len(indexes) == 1:
        return [Instruction(RETURN, 0, 0, indexes[0])]
    instructions = [Instruction(LOAD, 0, 0, RANDOM), Instruction(MODULO, 0, 0, ends[-1])]
    if ends[-1] == len(indexes) and indexes == list(range(indexes[0], indexes[-1] + 1)):
        instructions += [Instruction(ADD, 0, 0, indexes[0]), Instruction(RETURN_A, 0, 0, 0)]
    else:
        instructions += _tree(indexes, ends)
    if len(instructions) > MAX_LENGTH:
        raise ValueError(f"{len(indexes)} listeners make a program longer than {MAX_LENGTH}")
    return instructions


def leading(port: int, slot: int, ipv6: bool, others: list[Instruction]) -> list[Instruction]:
    """Return `others`, but that who comes from the TCP port `port` gets listener `slot`."""
    header = 40 if ipv6 else 20  # bytes; options make it miss, and then `others` decide
    return [
        Instruction(LOAD_HALF, 0, 0, NETWORK_HEADER + header),
        Instruction(JUMP_IF_EQUAL, 0, 1, port),
        Instruction(RETURN, 0, 0, slot),
        *others,
    ]


def _tree(indexes: Sequence[int], ends: Sequence[int]) -> list[Instruction]:
    """Return instructions that find the first end above A, in as few steps as possible."""
    if len(indexes) == 1:
        return [Instruction(RETURN, 0, 0, indexes[0])]
    middle = len(indexes) // 2
    below = _tree(indexes[:middle], ends[:middle])
    above = _tree(indexes[middle:], ends[middle:])
    boundary = ends[middle - 1]
    if len(below) <= _MAX_SKIP:
        test = [Instruction(JUMP_IF_AT_LEAST, len(below), 0, boundary)]
    else:
        test = [
            Instruction(JUMP_IF_AT_LEAST, 0, 1, boundary),
            Instruction(JUMP, 0, 0, len(below)),
        ]
    return [*test, *below, *above]


def weights(held: Sequence[int], levels: int = 16) -> list[int]:
    """Return weights for listeners whose processes hold so many connections each.

    Each is what the process lacks to an even share of twice as many connections as there are now,
    so that an imbalance shrinks gently and a fresh process is not flooded. They lie between 1 and
    `levels`; few levels, so that they (and the program) seldom change.
    """
    if not held:
        return []
    small = 16  # connections for each; below that, differences are noise
    arriving = max(sum(held), small * len(held))
    share = (sum(held) + arriving) / len(held)
    lacking = [max(share - count, 0.0) for count in held]
    most = max(lacking)
    return [max(1, round(levels * lack / most)) for lack in lacking]


def attach(sock: socket.socket, instructions: Sequence[Instruction]) -> None:
    """Make `instructions` the program of the group that `sock` belongs to. Takes about 20 µs.

    Raises SteeringRefusedError.
    """
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    memory = ctypes.create_string_buffer(packed, len(packed))
    sock_fprog = struct.pack("HP", len(instructions), ctypes.addressof(memory))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, sock_fprog)
    except OSError as error:
        raise SteeringRefusedError(
            f"this kernel takes no program to steer connections with: {error.strerror}"
        ) from None


def supported(family: int = socket.AF_INET) -> bool:
    """Whether this kernel takes steering programs. Costs one short-lived socket."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            attach(sock, program([0]))
    except (OSError, SteeringRefusedError):
        return False
    return True
