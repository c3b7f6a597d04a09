"""Writes small Django projects for launchers and probes."""

from pathlib import Path

SETTINGS = """
import os
SECRET_KEY = "test"
ALLOWED_HOSTS = ["shop.example"]
INSTALLED_APPS = ["channels", "shop"]
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {}
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
from shop import views
urlpatterns = [path("", views.index)]
"""
VIEWS = """
from django.http import HttpResponse
def index(request):
    return HttpResponse(request.get_host())
"""
ASGI = """
from django.core.asgi import get_asgi_application
application = get_asgi_application()
"""
WSGI = """
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "shop.settings"}


def write(directory: Path, **modules: str) -> Path:
    """Write the project, with other text in the modules that are named. Return its directory."""
    package = directory / "shop"
    package.mkdir(parents=True, exist_ok=True)
    sources = {
        "__init__": "",
        "settings": SETTINGS,
        "urls": URLS,
        "views": VIEWS,
        "asgi": ASGI,
        "wsgi": WSGI,
        **modules,
    }
    for name, text in sources.items():
        (package / f"{name}.py").write_text(text)
    return directory
