"""What `chansup check` says of packages whose WebSockets have a session of their own."""

from collections.abc import Sequence

from chansup.config import relay, routes, session_packages
from chansup.config.keys import Finding
from chansup.config.schema import Config


def found(config: Config, modules: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """Return notes and warnings about the packages, of which `modules` are imported by the app."""
    if not any(_moving(config, name) for name in relay.app_workers(config)):
        return [], []
    packages = session_packages.imported(modules)
    known = [package.name for package in packages if package.is_recognised]
    others = [package.name for package in packages if not package.is_recognised]
    notes = []
    if known:
        notes.append(
            f"the app imports {', '.join(known)}: where clients use it, WebSockets are closed with "
            "1012 instead of moved, for a new process would not know their sessions"
        )
    if not others or config.handover.close or config.handover.move:
        return notes, []
    message = (
        f"the app imports {', '.join(others)}, whose clients have a session in the process, and "
        'chansup cannot recognise them: write handover = "close" for their route, or name them in '
        "[handover] close. `chansup check --handover URL` tries it"
    )
    return notes, [
        (("workers", name, "handover"), message)
        for name in relay.app_workers(config)
        if _moving(config, name)
    ]


def _moving(config: Config, name: str) -> bool:
    """Whether a pool serves WebSockets that would be moved, and no others."""
    websockets = [
        one
        for one in relay.served(config.workers[name])
        if routes.parse(one.route).type == "websocket"
    ]
    return bool(websockets) and all(one.handover == "transparent" for one in websockets)
