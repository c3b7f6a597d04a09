"""Regular expressions of `channel_capacity`: as `re` says, and in a time that is bounded."""

import random
import re
import time

import pytest

from chansup.layer import LocalChannelLayer
from chansup.layer.errors import LayerConfigError
from chansup.layer.expressions import Expression
from chansup.layer.policies import Capacities, Policy, Rule, rules

NAMES = [
    "", "a", "ab", "aab", "b", "websocket.send!x", "websocket.sendx", "user.42", "user.x", "USER.7",
    "thumbnails", "thumbnails.large", "x-y_z", "aaaaaaaaaa", "mail", "mails.urgent!ab.c", "0", "-",
]  # fmt: skip
EXPRESSIONS = [
    r"", r"a", r"^a$", r"a*b", r"a+?b", r"(a|b)+", r"(?:ab|a)b?$", r"^websocket.send\!.+", r"\w+",
    r"user\.\d+$", r"[a-c]{2,3}", r"[^.]+$", r"(?P<kind>mail|user)s?\.[\w-]+", r"a{3}", r".*!.*$",
    r"x|y|z", r"()", r"a||b", r"[\]a-]+\Z", r"\Aa{0,2}b", r"[]a]", r"b$|^a", r"a{,2}$", r"a^b",
    r"(a*)*b", r"[\d.]", r"\-", r"(^a|b)(b|$)", r"a{", r"{", r"}", r"]",
]  # fmt: skip


@pytest.mark.parametrize("flags", [0, re.IGNORECASE, re.ASCII])
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_it_says_what_re_says(text: str, flags: int) -> None:
    mine, other = Expression(text, flags), re.compile(text, flags)
    for name in NAMES:
        assert mine.matches(name) is bool(other.match(name)), (text, name)


def test_it_says_what_re_says_of_whatever_comes() -> None:
    chance = random.Random(8)

    def made(depth: int) -> str:
        if depth == 0 or chance.random() < 0.2:
            return chance.choice(
                ["a", "b", "1", ".", r"\d", r"\w", "[ab]", "[^a]", "[a-c1]", r"\."]
            )
        kind = chance.randrange(5)
        if kind == 0:
            return f"({made(depth - 1)}|{made(depth - 1)})"
        if kind == 1:
            return f"(?:{made(depth - 1)})" + chance.choice(["*", "+", "?", "{2}", "{1,3}", "*?"])
        if kind == 2:
            return chance.choice(["^", "$", ""]) + made(depth - 1)
        return made(depth - 1) + made(depth - 1)

    for _ in range(1500):
        text = made(4)
        mine, other = Expression(text), re.compile(text)
        for _ in range(6):
            name = "".join(chance.choice("ab1.c") for _ in range(chance.randrange(8)))
            assert mine.matches(name) is bool(other.match(name)), (text, name)


@pytest.mark.parametrize("text", [r"(a+)+$", r"(a|a)*b", r"(\w+\s?)*!$", r"(.*a){20}$"])
def test_what_makes_re_hang_takes_a_moment(text: str) -> None:
    capacities = Capacities(Policy(60, 60, 100, rules({re.compile(text): 5})))
    began = time.process_time()
    for number in range(20):
        capacities.find(b"a" * 90 + b"!%d-" % number)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text", [r"(a)\1", r"a(?=b)", r"(?<!a)b", r"\bword", r"a++", r"a{1000}", "(" * 60 + ")" * 60]
)  # fmt: skip
def test_what_cannot_be_matched_so_is_refused_where_it_is_configured(text: str) -> None:
    try:
        compiled = re.compile(text)
    except re.error:
        pytest.skip("this Python does not know it")
    with pytest.raises(LayerConfigError, match=r"channel_capacity: .* Write a glob instead"):
        LocalChannelLayer("/nowhere", channel_capacity={compiled: 5})


def test_what_another_client_says_is_the_expression_of_a_glob_is_not_used() -> None:
    rule = Rule("mail.*", r"(a+)+$", 0, 7)
    capacities = Capacities(Policy(60, 60, 100, (rule,)))
    assert capacities.find(b"mail.x") == (7, "mail.*")
    assert capacities.find(b"a" * 60 + b"!") == (100, "*")


def test_flags_in_the_expression_count() -> None:
    compiled = re.compile(r"(?i)mail")
    assert Expression(compiled.pattern, compiled.flags).matches("MAILS")


def test_there_are_few_expressions_and_many_globs() -> None:
    rules({f"a{number}*": 5 for number in range(1000)})
    with pytest.raises(ValueError, match="1001 patterns"):
        rules({f"a{number}*": 5 for number in range(1001)})
    with pytest.raises(ValueError, match="21 compiled expressions"):
        rules({re.compile(f"a{number}"): 5 for number in range(21)})
