import os
import time

os.environ["DJANGO_SETTINGS_MODULE"] = "django_settings"

import presence
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path

application = get_asgi_application()

from django_eventstream import urls  # noqa: E402 - not before the settings are known
from django_eventstream.views import get_listener_manager  # noqa: E402


async def events(request):
    return StreamingHttpResponse(presence.news(), content_type="text/event-stream")


async def ticks(request):
    return StreamingHttpResponse(presence.ticks(), content_type="text/event-stream")


def slow(request):
    """Work in a thread."""
    presence.change(1)
    time.sleep(1)
    presence.change(-1)
    return HttpResponse("slow")


def blocks(request):
    presence.block()


async def reads(request):
    return HttpResponse(str(len(request.body)))


async def count(request):
    return HttpResponse(presence.count())


async def listeners(request):
    """Return how many event streams django-eventstream knows of."""
    held = get_listener_manager().listeners_by_channel
    return HttpResponse(str(sum(map(len, held.values()))))


urlpatterns = [
    path("django/events", events),
    path("django/ticks", ticks),
    path("django/slow", slow),
    path("django/blocks", blocks),
    path("django/reads", reads),
    path("django/count", count),
    path("django/eventstream/count", listeners),
    path("django/eventstream/events", include(urls), {"channels": ["news"]}),
]
