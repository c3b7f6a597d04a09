from asgiref.sync import async_to_sync
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, OuterRef, Subquery
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import layer
from .forms import NameForm, PictureForm
from .models import Message, Picture, Room
from .names import random_name


def visitor(request: HttpRequest) -> str:
    """Return the visitor's name: chosen, or given at the first visit."""
    if "name" not in request.session:
        request.session["name"] = random_name()
    return request.session["name"]


@require_http_methods(["GET", "HEAD", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """The rooms there are, and a form to open another."""
    if request.method == "POST":
        form = NameForm(request.POST)
        if form.is_valid():
            return redirect(Room.open(form.cleaned_data["name"]))
        messages.error(request, "A room's name has 1 to 40 characters.")
    last = Message.objects.filter(room=OuterRef("pk")).order_by("-pk")
    rooms = Room.objects.annotate(
        count=Count("messages"),
        last_author=Subquery(last.values("author")[:1]),
        last_text=Subquery(last.values("text")[:1]),
        last_created=Subquery(last.values("created")[:1]),
    )
    return render(request, "rooms/home.html", {"rooms": rooms, "name": visitor(request)})


@require_POST
def rename(request: HttpRequest) -> HttpResponse:
    """Call the visitor something else."""
    form = NameForm(request.POST)
    if form.is_valid():
        request.session["name"] = form.cleaned_data["name"]
    else:
        messages.error(request, "A name has 1 to 40 characters.")
    return redirect("home")


@require_GET
def room(request: HttpRequest, slug: str) -> HttpResponse:
    """A room. The messages come over its WebSocket."""
    return render(
        request,
        "rooms/room.html",
        {
            "room": get_object_or_404(Room, slug=slug),
            "rooms": Room.objects.all(),
            "name": visitor(request),
        },
    )


@require_POST
def upload(request: HttpRequest, slug: str) -> HttpResponse:
    """Take a picture, show it in the room at once as a place holder, and have a thumbnail made."""
    room = get_object_or_404(Room, slug=slug)
    form = PictureForm(request.POST, request.FILES)
    if not form.is_valid():
        return JsonResponse({"error": form.errors["picture"][0]}, status=400)
    file = form.cleaned_data["picture"]
    with transaction.atomic():
        message = Message.objects.create(room=room, author=visitor(request))
        picture = Picture.objects.create(
            message=message, original=file, content_type=file.content_type
        )
    try:
        layer.show(message)
        async_to_sync(layer.make_thumbnail)(picture.pk)
    except layer.LAYER_ERRORS:
        # The picture is kept: its thumbnail will be made when someone comes back to the room.
        return JsonResponse({"id": message.pk, "problem": layer.LAYER_IS_AWAY}, status=202)
    return JsonResponse({"id": message.pk}, status=201)


@require_GET
def picture(request: HttpRequest, pk: int, kind: str) -> HttpResponse:
    """A picture's file, which never changes."""
    picture = get_object_or_404(Picture, pk=pk)
    if kind == "original":
        file, content_type = picture.original, picture.content_type
    elif kind == "thumbnail" and picture.thumbnail:
        file, content_type = picture.thumbnail, "image/webp"
    else:
        raise Http404
    try:
        with file.open() as opened:
            data = opened.read()
    except FileNotFoundError as error:
        raise Http404 from error
    # SecurityMiddleware adds "nosniff": to the browser this is a picture, whatever is in it.
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    return HttpResponse(data, content_type=content_type, headers=headers)
