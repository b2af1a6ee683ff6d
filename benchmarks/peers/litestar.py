"""Plain Litestar: a listener, and Litestar's Channels for the room. This is the 1.00 of every ratio."""

import asyncio
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


@websocket("/ws/stream")
async def stream(socket: WebSocket[Any, Any, Any]) -> None:
    """Answer with a stream, in a task, so that the connection reads on and can cancel it."""
    await socket.accept()
    tasks: dict[int, asyncio.Task[None]] = {}
    try:
        async for message in socket.iter_json():
            ref = message["ref"]
            if message["type"] == "cancel":
                tasks.pop(ref).cancel()
            else:
                tasks[ref] = asyncio.create_task(answer(socket, int(message["text"]), ref))
    finally:
        for task in tasks.values():
            task.cancel()


async def answer(socket: WebSocket[Any, Any, Any], length: int, ref: int) -> None:
    try:
        for _ in range(length):
            await socket.send_json({"type": "said", "text": "hello", "ref": ref})
        await socket.send_json({"type": "end", "ref": ref})
    except asyncio.CancelledError:
        await socket.send_json({"type": "end", "ref": ref, "cancelled": True})


channels = ChannelsPlugin(backend=MemoryChannelsBackend(), arbitrary_channels_allowed=True)
app = Litestar([echo, rooms, stream], plugins=[channels])
