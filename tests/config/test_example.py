"""chansup.toml.example says everything, and nothing that is wrong."""

import os
import re
from pathlib import Path

import pytest
import tomli

from chansup.config import schema, structure
from chansup.config.keys import Finding
from chansup.config.load import load

EXAMPLE = Path(__file__).parents[2] / "chansup.toml.example"
TEXT = EXAMPLE.read_text()
TABLES: dict[str, type[schema.Table]] = {
    "app": schema.App,
    "interface": schema.Interface,
    "workers.web": schema.Workers,
    "workers.thumbnails": schema.Workers,
    "programs.redis": schema.Program,
    "tasks.migrate": schema.Task,
    "channel_layer": schema.ChannelLayer,
    "handover": schema.HandoverRules,
    "rollout": schema.Rollout,
    "admin": schema.Admin,
    "log": schema.Log,
    "supervisor": schema.Supervisor,
}
OFF = re.compile(r"^#([a-z_]+ = .*)$", re.MULTILINE)


def uncommented() -> dict[str, object]:
    return tomli.loads(OFF.sub(r"\1", TEXT))


def off_keys() -> list[tuple[str, str, object, bool]]:
    """Return table, key, value and whether it has a default, for each key that is off."""
    found = []
    table, before = "", ""
    for line in TEXT.splitlines():
        if header := re.match(r"\[(.+)\]$", line):
            table = header[1]
        if OFF.match(line):
            ((key, value),) = tomli.loads(line[1:]).items()
            found.append((table, key, value, not before.startswith("# unset:")))
        before = line
    return found


def test_it_is_valid_as_it_is(tmp_path):
    (tmp_path / "chansup.toml").write_text(TEXT)
    (tmp_path / "manage.py").touch()
    assert load(tmp_path / "chansup.toml", {}).warnings == []


def test_every_line_that_is_off_would_be_understood():
    findings: list[Finding] = []
    structure.build(uncommented(), findings)
    assert findings == []


@pytest.mark.parametrize("table", dict.fromkeys(TABLES.values()))
def test_no_key_is_missing(table):
    shown = set()
    for name in (name for name in TABLES if TABLES[name] is table):
        found = uncommented()
        for part in name.split("."):
            inner = found[part]
            assert isinstance(inner, dict)
            found = inner
        shown |= set(found)
    assert shown == set(structure.fields(table))


def test_no_table_is_missing():
    assert set(structure.fields(schema.Config)) == {name.split(".")[0] for name in TABLES}


@pytest.mark.parametrize(("table", "key", "value", "has_default"), off_keys())
def test_each_default_is_the_schema_s(table, key, value, has_default):
    field = structure.fields(TABLES[table])[key]
    default = field.default_factory() if callable(field.default_factory) else field.default
    if has_default:
        assert value == default
        assert type(value) is type(default)
    else:
        assert default is None


def test_each_example_value_is_right_by_the_rules(tmp_path):
    """All that may stand beside each other, at once."""
    exclusive = (
        r"wsgi|python|threads|command|ready|user|group|runtime_directory"
        r"|only_channels|exclude_channels|max_deliveries|dead_letters"
        + ("" if os.geteuid() == 0 else "|unix_owner|unix_group")  # only root gives files away
    )
    text = re.sub(rf"^#(?!(?:{exclusive}) = )([a-z_]+ = .*)$", r"\1", TEXT, flags=re.MULTILINE)
    (tmp_path / "chansup.toml").write_text(text)
    (tmp_path / "manage.py").touch()
    load(tmp_path / "chansup.toml", {})
