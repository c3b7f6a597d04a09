"""``${NAME}`` and ``${NAME:-default}`` in the strings of a config."""

import re
from collections.abc import Mapping

from chansup.config.keys import Finding, Key, quoted

_PLACEHOLDER = re.compile(
    r"\$\$\{"  # an escaped "${"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}"
    r"|\$\{"  # anything else that begins like one
)


class Interpolated(str):
    """A string that a variable went into: where a number belongs, it may be one in digits."""

    __slots__ = ()


class Unresolved(str):
    """A string whose variable is not known. Why is reported already; the value says nothing."""

    __slots__ = ()


def interpolate(text: str, variables: Mapping[str, str]) -> tuple[str, str | None]:
    """Return `text` with its variables filled in, and what is wrong with it, if anything.

    An empty variable counts as unset where a default is given, as in a shell. ``$${`` stands for
    ``${``. The result is an `Interpolated` or an `Unresolved` where a variable was named.
    """
    wrong: list[str] = []
    named = False

    def fill(match: re.Match[str]) -> str:
        nonlocal named
        if match[0] == "$${":
            return "${"
        name, default = match["name"], match["default"]
        if name is None:
            beginning = match.string[match.start() : match.start() + 20]
            wrong.append(
                f"{quoted(beginning)} is not a variable: write ${{NAME}} or ${{NAME:-default}}, "
                "or $${ for the characters themselves"
            )
            return ""
        named = True
        if default is not None:
            return variables.get(name) or default[2:]
        if name not in variables:
            wrong.append(
                f"the environment variable {name} is not set: set it, put it into "
                f"[app] env_file, or give it a default: ${{{name}:-…}}"
            )
            return ""
        return variables[name]

    result = _PLACEHOLDER.sub(fill, text)
    if wrong:
        return Unresolved(result), "; ".join(wrong)
    return (Interpolated(result) if named else result), None


def interpolate_tree(
    value: object, variables: Mapping[str, str], key: Key, findings: list[Finding]
) -> object:
    """Return `value` with every string in it interpolated, keys of tables excluded.

    What is wrong is added to `findings`.
    """
    if type(value) is str:  # an Interpolated is finished
        result, wrong = interpolate(value, variables)
        if wrong:
            findings.append((key, wrong))
        return result
    if isinstance(value, dict):
        return {
            name: interpolate_tree(inner, variables, (*key, name), findings)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [
            interpolate_tree(inner, variables, (*key, position), findings)
            for position, inner in enumerate(value)
        ]
    return value
