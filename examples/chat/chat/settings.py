"""Settings. What differs between machines comes from the environment.

CHAT_HOSTS      public host names, with commas between them
SECRET_KEY      needed as soon as CHAT_HOSTS is set
CHAT_DATA_DIR   the database, the pictures and the collected static files
DEBUG           1 for Django's error pages
"""

import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("CHAT_DATA_DIR") or BASE_DIR / "data")
DATA_DIR.mkdir(parents=True, exist_ok=True)

DEBUG = os.environ.get("DEBUG") == "1"
TESTING = sys.argv[1:2] == ["test"]

PUBLIC_HOSTS = [
    host.strip() for host in os.environ.get("CHAT_HOSTS", "").split(",") if host.strip()
]
ALLOWED_HOSTS = [*PUBLIC_HOSTS, "localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in PUBLIC_HOSTS]

# One fixed default, not a random one: all processes must agree on it. It is known to everyone, so
# it will not do for a site that everyone can reach.
SECRET_KEY = os.environ.get("SECRET_KEY") or "only-for-trying-it-out-on-your-own-machine-0123456789"
if PUBLIC_HOSTS and not os.environ.get("SECRET_KEY"):
    raise ImproperlyConfigured(
        "CHAT_HOSTS is set, so SECRET_KEY must be too: a long random string, kept secret."
    )

INSTALLED_APPS = [
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rooms",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "chat.static.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "chat.urls"
ASGI_APPLICATION = "chat.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
                "rooms.context.site",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "chat.sqlite3",
        "OPTIONS": {
            # Several processes share this file: readers do not wait for the writer (WAL), writers
            # wait for each other (timeout, in seconds), and a transaction asks for the write lock
            # when it begins, not half-way.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The name that a visitor chose is all there is to a session, so a signed cookie holds it.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
SESSION_COOKIE_HTTPONLY = True
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# Follows [channel_layer] in the file that chansup runs: its own hub, or Redis.
CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
MEDIA_ROOT = DATA_DIR / "pictures"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

PICTURE_MAX_BYTES = 5 * 1024 * 1024
PICTURE_MAX_PIXELS = 25_000_000
THUMBNAIL_SIZE = (480, 360)

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        # Without this Django would only send errors by mail when DEBUG is off.
        "django": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "rooms": {"level": "INFO"},
    },
}

if TESTING:
    LOGGING["loggers"]["django"]["level"] = (
        "ERROR"  # the tests ask for what is not there, on purpose
    )
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    # Tests run without collectstatic.
    STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    WHITENOISE_USE_FINDERS = True
    WHITENOISE_AUTOREFRESH = True
