"""Django Channels: a consumer for the echo, and one whose group is the room, through its layer in memory."""

from typing import Any

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

from . import ID

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()


class Echo(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.send_json({"type": "said", "text": content["text"], "connection": ID, "count": 1})


class Room(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, _: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive_json(self, content: Any, **_: Any) -> None:
        message = {"type": "said", "room": self.room, "text": content["text"], "connection": ID}
        await self.channel_layer.group_send(self.room, {"type": "room.said", "message": message})

    async def room_said(self, event: Any) -> None:
        await self.send_json(event["message"])


app = ProtocolTypeRouter(
    {"websocket": URLRouter([path("ws/echo", Echo.as_asgi()), path("ws/rooms/<str:room>", Room.as_asgi())])}
)
