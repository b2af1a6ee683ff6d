"""Plain Litestar: a listener, and Litestar's Channels for the room. This is the 1.00 of every ratio."""

from typing import Any

from litestar import Litestar, WebSocket, websocket, websocket_listener
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.params import FromPath

from . import ID


@websocket_listener("/ws/echo")
async def echo(data: dict[str, Any]) -> dict[str, Any]:
    return {"type": "said", "text": data["text"], "connection": ID, "count": 1}


@websocket("/ws/rooms/{room:str}")
async def rooms(socket: WebSocket[Any, Any, Any], room: FromPath[str], channels: ChannelsPlugin) -> None:
    await socket.accept()
    async with channels.start_subscription([room]) as subscriber, subscriber.run_in_background(socket.send_data):
        async for data in socket.iter_json():
            channels.publish({"type": "said", "room": room, "text": data["text"], "connection": ID}, room)


channels = ChannelsPlugin(backend=MemoryChannelsBackend(), arbitrary_channels_allowed=True)
app = Litestar([echo, rooms], plugins=[channels])
