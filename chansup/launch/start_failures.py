"""Why a server did not start with its options: what it says, and which option is to blame."""

from pathlib import Path

from chansup import tracebacks
from chansup.protocol.launch import Launch


def is_of_the_app(error: BaseException, launch: Launch) -> bool:
    """Whether code in the directory of the app has a part in `error`."""
    directory = Path(launch.directory)
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(directory) and "site-packages" not in file.parts:
            return True
        trace = trace.tb_next
    return any(is_of_the_app(one, launch) for one in _inner(error))


def explain(error: BaseException, launch: Launch, version: str) -> str:
    """Return one line about an error that a server raised before it accepted connections."""
    while inner := _inner(error):
        error = inner[0]
    said = " ".join(tracebacks.last_line(error).split())
    place = _option_of(error, launch)
    options = ", ".join(sorted(launch.options))
    if place:
        remedy = f"see interface.options.{place}"
    elif options:
        remedy = f"see [interface.options], which has {options}"
    else:
        remedy = "CHANSUP_DEBUG=1 shows where"
    return f"{version} does not start: {said}: {remedy}"


def _inner(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _option_of(error: BaseException, launch: Launch) -> str:
    """Return the option whose value the error names: a file, or a word."""
    said = str(error)
    file = getattr(error, "filename", None)
    for name, value in launch.options.items():
        if isinstance(value, str) and value and (value == file or f"'{value}'" in said):
            return name
    return ""
