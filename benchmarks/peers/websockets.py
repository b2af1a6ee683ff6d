"""The server of `websockets`, and its broadcast, on uvloop."""

import asyncio
import json
import sys
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from . import ID

rooms: dict[str, set[ServerConnection]] = defaultdict(set)


async def handle(socket: ServerConnection) -> None:
    assert socket.request
    path = socket.request.path
    if path == "/ws/echo":
        async for message in socket:
            await socket.send(
                json.dumps({"type": "said", "text": json.loads(message)["text"], "connection": ID, "count": 1})
            )
        return
    rooms[path].add(socket)
    try:
        async for message in socket:
            broadcast(
                rooms[path],
                json.dumps({"type": "said", "room": path, "text": json.loads(message)["text"], "connection": ID}),
            )
    finally:
        rooms[path].discard(socket)


async def main() -> None:
    async with serve(handle, "127.0.0.1", int(sys.argv[1])):
        await asyncio.Event().wait()


uvloop.run(main())
