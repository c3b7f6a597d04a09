"""Finds what only a shell would act on, in commands that no shell runs.

A heuristic: what it names works, and is probably not meant. What stands in single quotes, behind a
backslash, or in the script of a shell or another language, is meant as it is. Source: sh(1), POSIX
Shell Command Language, 2.2 Quoting, 2.6 Word Expansions.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chansup.config.keys import quoted

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish"})
_RUN_A_SCRIPT = _SHELLS | {"su", "runuser", "python", "python3", "pypy3"}  # by -c
_RUN_A_LINE = frozenset({"perl", "ruby", "node", "lua"})  # by -e
_HAVE_A_LANGUAGE = frozenset({"awk", "gawk", "mawk", "sed", "grep", "egrep", "jq", "expr", "find"})
_OF_THE_SHELL = frozenset(
    {"cd", "exec", "export", "source", ".", "set", "ulimit", "umask", "trap", "eval", "unset"}
)
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)|\$[0-9@*#?]")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_REDIRECTION = re.compile(r"(?:[0-9]*|&)(?:>>?|<)(?:&[0-9-]|\S)?")
_OPERATORS = frozenset({"|", "||", "&&", "&", ";", "|&"})
_GLOB = re.compile(r"\S*(?:[/.][*?]|[*?][/.])\S*")  # "*" alone is what options such as hosts take
_QUOTED = "\ue000"  # stands for a character that a shell would take as it is
_IN_QUOTES = "\ue001"  # stands before one that a shell expands, yet is not a glob, "~" or operator


class Word(NamedTuple):
    """One word of a command: what the program gets, and what a shell would look at."""

    text: str
    live: str  # the same, with characters replaced that a shell would take as they are


def doubtful(command: str | list[str]) -> Iterator[str]:
    """Yield what to say of each thing that needs a shell; `command` is as the file has it.

    References such as ``${NAME}`` stand in it unresolved, so that no secret is shown.
    """
    listed = isinstance(command, list)
    words = [Word(word, word) for word in command] if listed else _split(str(command))
    if not words:
        return
    said = set()
    for place, word in enumerate(words):
        if _is_a_script(words, place):
            continue
        for what, remedy in _needs(word, listed, place):
            if what not in said:
                said.add(what)
                yield f"{quoted(what)} is passed as it stands, for no shell runs commands: {remedy}"


def _needs(word: Word, listed: bool, place: int) -> Iterator[tuple[str, str]]:
    shell = 'write ["sh", "-c", "exec …"] with the command in the last string'
    for match in _VARIABLE.finditer(word.live.replace(_IN_QUOTES, "")):
        if match[1]:
            yield match[0], f"write ${{{match[1]}}}, which chansup fills in"
        else:
            yield match[0], shell
    plain = word.live.replace(_IN_QUOTES, "")
    if "$(" in plain or "`" in plain:
        yield word.text, shell
    if word.live == "~" or word.live.startswith("~/"):
        yield word.text, f'write "${{HOME}}{word.text[1:]}"'
    if place == 0 and _ASSIGNMENT.match(word.live):
        yield word.text, "write it into the environment of the table"
    elif place == 0 and word.live in _OF_THE_SHELL:
        yield word.text, shell
    if word.live in _OPERATORS or _REDIRECTION.fullmatch(word.live):
        yield word.text, shell
    elif not listed:
        ends = word.live.endswith((";", "&", "|")) and len(word.live) > 1
        joins = "&&" in word.live or "||" in word.live
        globs = _GLOB.fullmatch(word.live) and "://" not in word.live
        if ends or joins or globs or _redirects(word.live):
            yield word.text, shell


def _redirects(live: str) -> bool:
    match = _REDIRECTION.match(live)
    return match is not None and match.end() > match.start() and any(c in "<>" for c in match[0])


def _is_a_script(words: Sequence[Word], place: int) -> bool:
    """Say whether the word at `place` is in a language of its own, or belongs to such a word."""
    names = [os.path.basename(word.text) for word in words[:place]]
    if names and names[0] in _HAVE_A_LANGUAGE:
        return True
    for at, word in enumerate(words[:place]):
        if re.fullmatch(r"-[A-Za-z]*c", word.text) and _RUN_A_SCRIPT.intersection(names[:at]):
            of_a_shell = _SHELLS.intersection(names[:at])
            return bool(of_a_shell) or place == at + 1
        if word.text == "-e" and _RUN_A_LINE.intersection(names[:at]):
            return place == at + 1
    return False


def _split(command: str) -> list[Word]:
    """Split as shlex.split does, and keep which characters a shell would look at."""
    words: list[Word] = []
    text = live = quote = ""
    begun = False
    characters = iter(command)
    for character in characters:
        if quote == "'":
            if character == "'":
                quote = ""
                continue
            text, live = text + character, live + _QUOTED
        elif character == "\\":
            following = next(characters, "")
            begun = True
            text, live = text + following, live + _QUOTED * len(following)
        elif quote == '"':
            if character == '"':
                quote = ""
                continue
            text += character
            live += _IN_QUOTES + (_QUOTED if character in "~*?|&;<>" else character)
        elif character in "'\"":
            quote, begun = character, True
        elif character.isspace():
            if begun:
                words.append(Word(text, live))
            text, live, begun = "", "", False
        else:
            text, live, begun = text + character, live + character, True
    if begun:
        words.append(Word(text, live))
    return words
