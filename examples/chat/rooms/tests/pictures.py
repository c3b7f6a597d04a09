"""Pictures to upload."""

from io import BytesIO

from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image


def picture(
    size=(1200, 800), image_format="PNG", name="holiday.png", **options
) -> SimpleUploadedFile:
    data = BytesIO()
    Image.new("RGB", size, "teal").save(data, image_format, **options)
    return SimpleUploadedFile(name, data.getvalue(), content_type="application/whatever")
