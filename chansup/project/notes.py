"""What whoever runs `chansup init` should know beside the file: nothing else is edited."""

from chansup.config.keys import listed
from chansup.project.project import Project

_LINE = 'CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}'


def notes(project: Project) -> list[str]:
    """Return what has to be said about a project, mostly nothing."""
    return [
        *_others(project),
        *_web(project),
        *_runworker(project),
        *_sessions(project),
        *_in_process(project),
        *_channel_layer(project),
    ]


def _web(project: Project) -> list[str]:
    """Name what the Procfile's web line says and the file does not."""
    web = project.web
    if web is None:
        return []
    if web.server is None:
        text = (
            "the Procfile's web line runs a program that chansup has no launcher for: "
            f"{web.command}. The file runs the app by uvicorn. To keep that program, set "
            "[interface] command"
        )
        return [f"Note: {text}."]
    if not web.left_out:
        return []
    each = [f"{said} ({own})" if own else said for said, own in web.left_out.items()]
    text = (
        f"of the Procfile's web line these options of {web.server} were not taken over, since "
        f"chansup has a key for them or does not know them: {listed(each, 'and')}"
    )
    return [f"Note: {text}."]


def _others(project: Project) -> list[str]:
    if not project.others:
        return []
    is_one = len(project.others) == 1
    what = "another app" if is_one else f"{len(project.others)} other apps"
    text = (
        f"the directory holds {what}: {listed(project.others, 'and')}. The file runs "
        f"{project.asgi or project.wsgi}. To run {'that' if is_one else 'one of them'} instead, "
        "change [app]; to run it beside, give it routes of its own: [workers.NAME] with serves and "
        'asgi (documentation, "Routes").'
    )
    return [f"Note: {text}"]


def _runworker(project: Project) -> list[str]:
    if not project.consumers:
        return []
    channels = listed([name for one in project.consumers for name in one.channels], "and")
    text = f"chansup's own workers take over from the Procfile's runworker: {channels}."
    return [f"Note: {text} They run the same consumers."]


def _sessions(project: Project) -> list[str]:
    """Say what becomes of WebSockets that have a session of their own."""
    known = [package.name for package in project.session_packages if package.is_recognised]
    others = [package.name for package in project.session_packages if not package.is_recognised]
    found = []
    if known:
        found.append(
            f"Note: {', '.join(known)}: a new process would not know the sessions of these "
            "WebSockets. A deploy closes them with 1012, and clients connect again; others move. "
            "[handover] move overrules that."
        )
    if others:
        found.append(
            f"Note: {', '.join(others)}: a new process would not know the sessions of these "
            'WebSockets, so the file says handover = "close": a deploy closes them with 1012. If '
            'others are to move, give them a route of their own (documentation, "Which apps '
            'survive a handover").'
        )
    return found


def _in_process(project: Project) -> list[str]:
    """Say why the file has one process of the app."""
    kept = [one for one in project.in_process.kept if project.channel_layer != "memory"]
    if not kept:
        return []
    each = "; ".join(f"{one.place}: {one.what}" for one in kept)
    text = (
        f"{each}. Each process would have its own, so the file says processes = 1. To run more: "
        'documentation, "More than one process".'
    )
    return [f"Note: {text}"]


def _channel_layer(project: Project) -> list[str]:
    if not project.has_channels or project.channel_layer == "chansup":
        return []
    settings = project.settings or "the settings"
    if project.channel_layer is None:
        text = f"{settings} has no CHANNEL_LAYERS. For groups and channels write there:"
    elif project.channel_layer == "memory":
        text = (
            f"CHANNEL_LAYERS in {settings} is the in-memory layer, which ends at the process. For "
            "more than one process, and for channel workers, write there:"
        )
    else:
        what = "channels_redis" if project.channel_layer == "redis" else "another layer"
        text = (
            f"CHANNEL_LAYERS in {settings} names {what}, and still works. For chansup's own "
            "layer, which needs no server, or to choose one in chansup.toml, write there:"
        )
    return [f"Note: {text}\n    {_LINE}"]
