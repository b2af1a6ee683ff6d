"""Plain aiohttp, with the JSON that it brings, on uvloop."""

import sys

import uvloop
from aiohttp import web

from . import ID

uvloop.install()


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_json({"type": "said", "text": message.json()["text"], "connection": ID, "count": 1})
    return socket


app = web.Application()
app.router.add_get("/ws/echo", echo)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
