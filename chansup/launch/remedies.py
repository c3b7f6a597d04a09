"""What to do about mistakes that many projects make while they are imported."""

import traceback
from collections.abc import Iterator

_ORDER = (
    "The module needs Django's apps before they are loaded. Call get_asgi_application() (in "
    "wsgi.py, get_wsgi_application()) first, and import consumers, routing, models and "
    "channels.auth below that line"
)
_TOO_EARLY = (
    "An app's __init__.py or apps.py needs models while Django still loads the apps. Import them "
    "in AppConfig.ready(), or in the function that uses them"
)
_SETTINGS = (
    "The settings are not known yet. Set DJANGO_SETTINGS_MODULE in [app] environment, or with "
    "os.environ.setdefault() above the first import that needs them"
)


def of_import(error: BaseException) -> str:
    """Return what mends an error that the import of an app raised; nothing where that is unknown.

    Errors are known by their names, so that nothing of Django is imported for it.
    """
    for one in _chain(error):
        name = type(one).__name__
        if name == "AppRegistryNotReady":
            return _TOO_EARLY if _while_apps_load(one) else _ORDER
        if name == "ImproperlyConfigured" and "settings are not configured" in str(one):
            return _SETTINGS
    return ""


def _while_apps_load(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(
        frame.name == "populate" and frame.filename.endswith("django/apps/registry.py")
        for frame in frames
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
