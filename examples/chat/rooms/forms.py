from django import forms
from django.conf import settings
from PIL import Image

CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp"}
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp"}


class NameForm(forms.Form):
    """What a visitor is called, or what a room is called."""

    name = forms.CharField(max_length=40)


class PictureForm(forms.Form):
    """An upload that is a picture, and not too big a one: in bytes, and unpacked."""

    picture = forms.FileField()

    def clean_picture(self):
        upload = self.cleaned_data["picture"]
        if upload.size > settings.PICTURE_MAX_BYTES:
            raise forms.ValidationError(
                f"The picture is over {settings.PICTURE_MAX_BYTES // 1024**2} MB."
            )
        try:
            # Whatever the file is called: Pillow can open many more formats than a browser.
            with Image.open(upload, formats=list(CONTENT_TYPES)) as image:
                image_format, (width, height) = image.format, image.size
                if width * height > settings.PICTURE_MAX_PIXELS:
                    raise forms.ValidationError("The picture has too many pixels.")
                image.verify()
        except forms.ValidationError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything for a broken file
            raise forms.ValidationError("This is not a JPEG, PNG, GIF or WebP picture.") from error
        upload.seek(0)
        upload.name = f"picture.{EXTENSIONS[image_format]}"
        upload.content_type = CONTENT_TYPES[image_format]
        return upload
