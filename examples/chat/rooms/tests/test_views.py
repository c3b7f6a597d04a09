import shutil
import tempfile
from unittest.mock import patch

from chansup.layer import HubUnavailable
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, TestCase, override_settings

from rooms.models import Message, Picture, Room

from .pictures import picture


class PageTests(TestCase):
    def test_home_shows_the_rooms_and_what_was_last_said(self):
        Message.objects.create(
            room=Room.open("Lobby"), author="Ada", text="<script>alert(1)</script>"
        )
        page = self.client.get("/")
        self.assertContains(page, "Pictures")
        self.assertContains(page, "Ada: &lt;script&gt;")
        self.assertNotContains(page, "<script>alert")

    def test_opening_a_room_twice_leads_to_the_same_room(self):
        first = self.client.post("/", {"name": "Coffee Corner"})
        again = self.client.post("/", {"name": "coffee corner"})
        self.assertRedirects(first, "/rooms/coffee-corner/")
        self.assertRedirects(again, "/rooms/coffee-corner/")

    def test_rooms_may_have_names_in_any_script(self):
        first = self.client.post("/", {"name": "咖啡"})
        self.assertEqual(self.client.post("/", {"name": "咖啡"}).url, first.url)
        self.assertNotEqual(self.client.post("/", {"name": "茶"}).url, first.url)
        self.assertContains(self.client.get(first.url), "咖啡")

    def test_a_room_needs_a_name(self):
        self.assertContains(self.client.post("/", {"name": " "}), "1 to 40 characters")
        self.assertContains(self.client.post("/", {"name": "x" * 41}), "1 to 40 characters")

    def test_a_visitor_has_a_name_and_may_change_it(self):
        self.client.get("/")
        self.assertTrue(self.client.session["name"])
        self.client.post("/name/", {"name": "Ada"})
        self.assertContains(self.client.get("/rooms/lobby/"), "Say something as Ada")

    def test_a_room_that_is_not_there(self):
        self.assertContains(self.client.get("/rooms/nowhere/"), "nothing here", status_code=404)

    def test_csrf_is_on(self):
        strict = Client(enforce_csrf_checks=True)
        self.assertEqual(strict.post("/", {"name": "x"}).status_code, 403)
        self.assertEqual(
            strict.post("/rooms/lobby/pictures/", {"picture": picture()}).status_code, 403
        )

    def test_static_files_are_served(self):
        for name in ("chat.css", "chat.js", "favicon.svg"):
            response = self.client.get(f"/static/rooms/{name}")
            self.assertEqual(response.status_code, 200)
            self.assertFalse(response.streaming)
        self.assertEqual(self.client.get("/static/../settings.py").status_code, 404)


class PictureTests(TestCase):
    def setUp(self):
        media = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, media)
        self.enterContext(override_settings(MEDIA_ROOT=media))

    def send(self, file) -> tuple[int, dict]:
        response = self.client.post("/rooms/lobby/pictures/", {"picture": file})
        return response.status_code, response.json()

    def assert_refused(self, file, why: str):
        status, answer = self.send(file)
        self.assertEqual(status, 400)
        self.assertIn(why, answer["error"])
        self.assertFalse(Picture.objects.exists())

    def test_each_format(self):
        for image_format, content_type in (
            ("PNG", "image/png"),
            ("JPEG", "image/jpeg"),
            ("GIF", "image/gif"),
            ("WEBP", "image/webp"),
        ):
            with self.subTest(image_format):
                status, answer = self.send(
                    picture(image_format=image_format, name="../../evil.html")
                )
                self.assertEqual(status, 201)
                stored = Message.objects.get(pk=answer["id"]).picture
                self.assertRegex(stored.original.name, r"^[0-9a-f]{32}\.(png|jpg|gif|webp)$")
                original = self.client.get(f"/pictures/{stored.pk}/original/")
                self.assertEqual(original["Content-Type"], content_type)
                self.assertEqual(original["X-Content-Type-Options"], "nosniff")
                self.assertEqual(
                    self.client.get(f"/pictures/{stored.pk}/thumbnail/").status_code, 404
                )

    def test_not_a_picture(self):
        html = SimpleUploadedFile("x.png", b"<script>alert(1)</script>", content_type="image/png")
        self.assert_refused(html, "not a JPEG")
        self.assert_refused(SimpleUploadedFile("empty.png", b""), "empty")
        self.assert_refused(picture(image_format="BMP"), "not a JPEG")
        self.assert_refused("", "required")

    def test_a_broken_picture(self):
        data = picture(size=(100, 100)).read()
        self.assert_refused(SimpleUploadedFile("x.png", data[:60]), "not a JPEG")

    @override_settings(PICTURE_MAX_BYTES=1024 * 1024)
    def test_too_many_bytes(self):
        self.assert_refused(SimpleUploadedFile("x.png", b"0" * (1024 * 1024 + 1)), "over 1 MB")

    @override_settings(PICTURE_MAX_PIXELS=100 * 100)
    def test_too_many_pixels(self):
        self.assert_refused(picture(size=(101, 100)), "too many pixels")

    def test_a_picture_sent_while_the_channel_layer_is_away_is_kept(self):
        with patch("rooms.layer.show", side_effect=HubUnavailable):
            status, answer = self.send(picture())
        self.assertEqual(status, 202)
        self.assertIn("channel layer", answer["problem"])
        self.assertEqual(Picture.objects.get().message_id, answer["id"])

    def test_a_lost_file_is_a_missing_page(self):
        self.send(picture())
        stored = Picture.objects.get()
        stored.original.storage.delete(stored.original.name)
        self.assertEqual(self.client.get(f"/pictures/{stored.pk}/original/").status_code, 404)
