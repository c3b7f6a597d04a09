from io import BytesIO
from typing import IO

from django.conf import settings
from PIL import Image, ImageOps


def make(original: IO[bytes]) -> tuple[bytes, tuple[int, int]]:
    """Return a thumbnail (WebP) and its size, without what a camera notes, such as the place."""
    with Image.open(original) as image:
        if image.format == "JPEG":
            image.draft(
                "RGB", settings.THUMBNAIL_SIZE
            )  # a large photo is decoded at a fraction of its size
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail(settings.THUMBNAIL_SIZE)
        result = BytesIO()
        upright.convert("RGBA" if upright.has_transparency_data else "RGB").save(
            result, "WEBP", quality=80, exif=b""
        )
        return result.getvalue(), upright.size
