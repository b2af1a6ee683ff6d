"""chanx on Starlette: typed handlers, a group in memory as the room, and a stream that a handler sends in a task."""

from typing import Literal

from chanx.core.decorators import channel, ws_handler
from chanx.fast_channels.websocket import AsyncJsonWebsocketConsumer
from chanx.messages.base import BaseMessage
from fast_channels.layers import InMemoryChannelLayer, register_channel_layer
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from . import ID


class Text(BaseModel):
    text: str


class SaidText(Text):
    connection: str = ID
    count: int = 1


class Say(BaseMessage):
    action: Literal["say"] = "say"
    payload: Text


class Said(BaseMessage):
    action: Literal["said"] = "said"
    payload: SaidText


class Item(BaseMessage):
    action: Literal["said"] = "said"
    payload: Text


@channel(name="echo")
class Echo(AsyncJsonWebsocketConsumer):
    @ws_handler
    async def echo(self, message: Say) -> Said:
        return Said(payload=SaidText(text=message.payload.text))


@channel(name="rooms")
class Rooms(AsyncJsonWebsocketConsumer):
    channel_layer_alias = "default"
    groups = ["hall"]  # noqa: RUF012

    @ws_handler(output_type=Said)
    async def say(self, message: Say) -> None:
        await self.broadcast_message(Said(payload=SaidText(text=message.payload.text)))


@channel(name="stream")
class Stream(AsyncJsonWebsocketConsumer):
    @ws_handler(output_type=Item)
    async def stream(self, message: Say) -> None:
        for _ in range(int(message.payload.text)):
            await self.send_message(Item(payload=Text(text="hello")))


register_channel_layer("default", InMemoryChannelLayer())
app = Starlette(
    routes=[
        WebSocketRoute("/ws/echo", Echo.as_asgi()),
        WebSocketRoute("/ws/rooms/hall", Rooms.as_asgi()),
        WebSocketRoute("/ws/stream", Stream.as_asgi()),
    ]
)
