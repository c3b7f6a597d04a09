from django.urls import path, re_path

from .consumers import NoSuchPage, RoomConsumer, ThumbnailConsumer

websocket_urls = [
    path("ws/rooms/<slug:slug>/", RoomConsumer.as_asgi()),
    re_path("", NoSuchPage.as_asgi()),
]

channels = {"thumbnails": ThumbnailConsumer.as_asgi()}
