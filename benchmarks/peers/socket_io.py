"""python-socketio: an event whose handler, a task of its own, emits a stream."""

from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


@server.event
async def stream(sid: str, message: dict[str, Any]) -> None:
    for _ in range(int(message["text"])):
        await server.emit("said", {"type": "said", "text": "hello", "ref": message["ref"]}, to=sid)


app = socketio.ASGIApp(server)
