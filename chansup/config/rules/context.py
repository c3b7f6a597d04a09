"""What a rule is given."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from chansup.config import pools
from chansup.config.keys import Finding, Key
from chansup.config.pools import Entry
from chansup.config.schema import Config


class Context:
    """A config, and what it is read in. Nothing here changes."""

    def __init__(
        self,
        config: Config,
        document: dict[str, object],  # what the file says: tells a default from a value
        config_directory: Path,  # absolute, of the config file
        directory: Path,  # absolute, of the app; need not exist
        environment: Mapping[str, str],  # everything that the app would see
        written: Mapping[str, object],  # what the file says, with variables not filled in
        of_env_files: Mapping[str, str],  # the part of it that [app] env_file says
    ) -> None:
        self.config = config
        self.document = document
        self.config_directory = config_directory
        self.directory = directory
        self.environment = environment
        self.written = written
        self.of_env_files = of_env_files

    @cached_property
    def entries(self) -> list[Entry]:
        """Every pool and task."""
        return pools.entries(self.config)

    def stands(self, *key: str) -> bool:
        """Say whether the file itself gives a key a value."""
        value: object = self.document
        for name in key:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        return True

    def as_written(self, *key: str) -> object:
        """Return what the file itself says at a key, with variables not filled in; or None."""
        value: object = self.written
        for name in key:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    def mentions(self, variable: str) -> bool:
        """Say whether the file reads an environment variable: ``${NAME}``, ``${NAME:-2}``."""
        text = str(self.written)
        return f"${{{variable}}}" in text or f"${{{variable}:" in text


Rule = Callable[[Context], Iterable[Finding]]


def attempt(key: Key, parse: Callable[..., object], *arguments: object) -> Iterator[Finding]:
    """Yield the ValueError of ``parse(*arguments)``, if it raises one, as a finding at `key`."""
    try:
        parse(*arguments)
    except ValueError as error:
        yield key, str(error)
