import os
import shutil
import tempfile
import uuid
from contextlib import asynccontextmanager
from io import BytesIO
from unittest.mock import patch

from asgiref.sync import sync_to_async
from channels.layers import channel_layers, get_channel_layer
from channels.testing import ApplicationCommunicator, WebsocketCommunicator
from chansup.layer import HubUnavailable
from django.test import Client, TransactionTestCase, override_settings
from PIL import Image

import chat
from chat.asgi import application
from rooms.models import Message, Picture, Room

from .pictures import picture


class Browser(WebsocketCommunicator):
    """Waits for longer than a second: a busy machine is not a failure."""

    async def connect(self, timeout=20):
        return await super().connect(timeout)

    async def receive_output(self, timeout=20):
        return await super().receive_output(timeout)

    async def receive_json_from(self, timeout=20):
        return await super().receive_json_from(timeout)


class RoomTestCase(TransactionTestCase):
    def setUp(self):
        channel_layers.backends.clear()  # each test has an event loop of its own
        self.room = Room.open("Lobby")

    async def enter(
        self, path="/ws/rooms/lobby/", origin=b"http://localhost", name=None
    ) -> "Browser":
        headers = [(b"origin", origin), (b"host", b"localhost")]
        if name:
            client = Client()
            await sync_to_async(client.post)("/name/", {"name": name})
            headers.append((b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()))
        socket = Browser(application, path, headers=headers)
        socket.accepted, _ = await socket.connect()
        return socket


class RoomTests(RoomTestCase):
    async def test_welcome_tells_the_code_the_process_and_the_history(self):
        await Message.objects.acreate(room=self.room, author="Ada", text="first")
        socket = await self.enter(name="Grace")
        welcome = await socket.receive_json_from()
        self.assertEqual(welcome["type"], "welcome")
        self.assertEqual(
            (welcome["version"], welcome["pid"], welcome["name"]),
            (chat.VERSION, os.getpid(), "Grace"),
        )
        self.assertEqual([message["text"] for message in welcome["messages"]], ["first"])
        await socket.disconnect()

    async def test_welcome_tells_how_often_the_connection_moved(self):
        socket = Browser(
            application,
            "/ws/rooms/lobby/",
            headers=[(b"origin", b"http://localhost"), (b"host", b"localhost")],
        )
        socket.scope["extensions"] = {
            "chansup.handover": {"count": 2, "reason": "deploy", "checkpoint": None}
        }
        await socket.connect()
        self.assertEqual((await socket.receive_json_from())["moves"], 2)
        await socket.disconnect()
        self.assertEqual((await (await self.enter()).receive_json_from())["moves"], 0)

    async def test_everyone_in_the_room_gets_a_message_once(self):
        ada, grace = await self.enter(name="Ada"), await self.enter(name="Grace")
        await sync_to_async(Room.open)("Pictures")
        elsewhere = await self.enter("/ws/rooms/pictures/")
        for socket in (ada, grace, elsewhere):
            await socket.receive_json_from()
        await ada.send_json_to({"key": uuid.uuid4().hex, "text": "  <b>hello</b>  "})
        for socket in (ada, grace):
            event = await socket.receive_json_from()
            self.assertEqual(
                (event["message"]["author"], event["message"]["text"]), ("Ada", "<b>hello</b>")
            )
            self.assertTrue(await socket.receive_nothing())
        self.assertTrue(await elsewhere.receive_nothing())
        for socket in (ada, grace, elsewhere):
            await socket.disconnect()

    async def test_a_message_sent_twice_is_one_message(self):
        key = uuid.uuid4().hex
        for _ in range(2):
            socket = await self.enter()
            await socket.receive_json_from()
            await socket.send_json_to({"key": key, "text": "did this arrive?"})
            self.assertEqual(
                (await socket.receive_json_from())["message"]["key"], str(uuid.UUID(key))
            )
            await socket.disconnect()
        self.assertEqual(await Message.objects.acount(), 1)

    async def test_too_long_or_empty(self):
        socket = await self.enter()
        await socket.receive_json_from()
        for text in ("", "   ", "x" * 2001):
            await socket.send_json_to({"key": uuid.uuid4().hex, "text": text})
            self.assertEqual((await socket.receive_json_from())["type"], "refused")
        self.assertFalse(await Message.objects.aexists())
        await socket.disconnect()

    async def test_nonsense_ends_the_connection(self):
        key = f'"{uuid.uuid4()}"'
        for nonsense in (
            "{",
            "[]",
            "null",
            "{}",
            "[" * 100_000,
            '{"key": 1, "text": "x"}',
            f'{{"key": {key}, "text": 7}}',
            f'{{"key": {key}, "text": "\\ud800"}}',
        ):
            with self.subTest(nonsense[:50]):
                socket = await self.enter()
                await socket.receive_json_from()
                await socket.send_to(text_data=nonsense)
                self.assertEqual((await socket.receive_output())["code"], 1007)
                await socket.disconnect()

    async def test_a_room_that_is_not_there(self):
        socket = await self.enter("/ws/rooms/nowhere/")
        self.assertEqual((await socket.receive_output())["code"], 4404)
        self.assertFalse((await self.enter("/ws/anything")).accepted)

    async def test_other_sites_are_turned_away(self):
        self.assertFalse((await self.enter(origin=b"http://evil.example")).accepted)

    async def test_while_the_channel_layer_is_away_the_room_says_so(self):
        with (
            patch(
                "channels.layers.InMemoryChannelLayer.group_add",
                side_effect=HubUnavailable("gone"),
            ),
            self.assertLogs("rooms", "WARNING"),
        ):
            socket = await self.enter()
            self.assertIn("channel layer", (await socket.receive_json_from())["text"])
            self.assertEqual((await socket.receive_output())["code"], 1013)

    async def test_a_channel_layer_that_goes_away_later(self):
        socket = await self.enter()
        await socket.receive_json_from()
        with (
            patch(
                "channels.layers.InMemoryChannelLayer.group_send",
                side_effect=HubUnavailable("gone"),
            ),
            self.assertLogs("rooms", "WARNING"),
        ):
            await socket.send_json_to({"key": uuid.uuid4().hex, "text": "kept"})
            self.assertIn("channel layer", (await socket.receive_json_from())["text"])
            self.assertEqual((await socket.receive_output())["code"], 1013)
        self.assertEqual((await Message.objects.aget()).text, "kept")


class ThumbnailTests(RoomTestCase):
    def setUp(self):
        super().setUp()
        media = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, media)
        self.enterContext(override_settings(MEDIA_ROOT=media))

    def add(self, file) -> Picture:
        message = Message.objects.create(room=self.room, author="Ada")
        return Picture.objects.create(message=message, original=file, content_type="image/png")

    @asynccontextmanager
    async def worker(self):
        """Give the next job of the background channel to the application, as a worker does."""
        job = await get_channel_layer().receive("thumbnails")
        worker = ApplicationCommunicator(application, {"type": "channel", "channel": "thumbnails"})
        await worker.send_input(job)
        yield
        worker.stop()

    async def test_an_upload_becomes_a_thumbnail_in_the_room(self):
        socket = await self.enter()
        await socket.receive_json_from()
        response = await sync_to_async(Client().post)(
            "/rooms/lobby/pictures/", {"picture": picture((1200, 600))}
        )
        self.assertEqual(response.status_code, 201)
        event = await socket.receive_json_from()
        self.assertEqual(event["message"]["picture"]["state"], "waiting")
        async with self.worker():
            event = await socket.receive_json_from()
        shown = event["message"]["picture"]
        self.assertEqual((shown["state"], shown["width"], shown["height"]), ("ready", 480, 240))
        thumbnail = await sync_to_async(Client().get)(shown["thumbnail"])
        self.assertEqual(thumbnail["Content-Type"], "image/webp")
        self.assertEqual(Image.open(BytesIO(thumbnail.content)).size, (480, 240))
        await socket.disconnect()

    async def test_a_lost_job_is_asked_for_again_by_the_next_visitor(self):
        stored = await sync_to_async(self.add)(picture())
        socket = await self.enter()
        await socket.receive_json_from()
        async with self.worker():
            self.assertEqual(
                (await socket.receive_json_from())["message"]["picture"]["state"], "ready"
            )
        await stored.arefresh_from_db()
        self.assertEqual(stored.state, Picture.State.READY)
        await socket.disconnect()

    async def test_a_picture_of_which_none_can_be_made(self):
        broken = picture(size=(50, 50))
        broken.file.truncate(50)
        stored = await sync_to_async(self.add)(broken)
        socket = await self.enter()
        await socket.receive_json_from()
        with self.assertLogs("rooms", "ERROR"):
            async with self.worker():
                self.assertEqual(
                    (await socket.receive_json_from())["message"]["picture"]["state"], "failed"
                )
        await stored.arefresh_from_db()
        self.assertEqual(stored.state, Picture.State.FAILED)
        await socket.disconnect()


class UprightTests(TransactionTestCase):
    def test_thumbnails_stand_upright_and_tell_nothing_of_the_camera(self):
        from rooms import thumbnails

        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned by 90 degrees
        exif[0x010E] = "my home"
        data, size = thumbnails.make(picture((800, 400), "JPEG", exif=exif))
        self.assertEqual(size, (180, 360))
        self.assertFalse(Image.open(BytesIO(data)).getexif())
