"""Why a channel worker cannot do its work, as the configuration and the project stand."""

from chansup.errors import ChansupError


class WorkerConfigError(ChansupError):
    """Trying again would change nothing: the config, the settings or the app must change."""
