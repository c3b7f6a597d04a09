import uuid
import zlib

from django.db import models
from django.urls import reverse
from django.utils.text import slugify


class Room(models.Model):
    name = models.CharField(max_length=50)
    slug = models.SlugField(max_length=60, unique=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @classmethod
    def open(cls, name: str) -> "Room":
        """Return the room of this name, made now if there is none."""
        # A name of which nothing is left in ASCII still gets an address, and always the same.
        slug = slugify(name) or f"room-{uuid.uuid5(uuid.NAMESPACE_URL, name).hex[:8]}"
        return cls.objects.get_or_create(slug=slug, defaults={"name": name})[0]

    @property
    def group(self) -> str:
        """The channel layer's group of everyone in the room."""
        return f"room.{self.pk}"

    @property
    def hue(self) -> int:
        """The colour of the room's badge, always the same for the same name."""
        return zlib.crc32(self.name.encode()) % 360

    def get_absolute_url(self) -> str:
        return reverse("room", args=[self.slug])


class Message(models.Model):
    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="messages")
    # Made by the browser, which sends a message again when it could not know whether it arrived.
    key = models.UUIDField(unique=True, default=uuid.uuid4)
    author = models.CharField(max_length=40)
    text = models.TextField(max_length=2000, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"

    def as_json(self) -> dict:
        """What browsers get. They show it as text, never as HTML."""
        picture = getattr(self, "picture", None)
        return {
            "id": self.pk,
            "key": str(self.key),
            "author": self.author,
            "text": self.text,
            "created": self.created.isoformat(),
            "picture": picture and picture.as_json(),
        }


def picture_path(picture: "Picture", name: str) -> str:
    # Nothing of a visitor's file name reaches the disk.
    return f"{uuid.uuid4().hex}.{name.rpartition('.')[2]}"


class Picture(models.Model):
    class State(models.TextChoices):
        WAITING = "waiting"
        READY = "ready"
        FAILED = "failed"

    message = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="picture")
    original = models.FileField(upload_to=picture_path)
    content_type = models.CharField(max_length=20)
    thumbnail = models.FileField(upload_to=picture_path, blank=True)
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)

    def __str__(self) -> str:
        return f"picture {self.pk} ({self.state})"

    def as_json(self) -> dict:
        return {
            "state": str(self.state),
            "original": reverse("picture", args=[self.pk, "original"]),
            "thumbnail": reverse("picture", args=[self.pk, "thumbnail"])
            if self.thumbnail
            else None,
            "width": self.width,
            "height": self.height,
        }
