"""Plain Starlette, with the JSON that it brings."""

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import ID


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            data = await socket.receive_json()
            await socket.send_json({"type": "said", "text": data["text"], "connection": ID, "count": 1})
    except WebSocketDisconnect:
        pass


app = Starlette(routes=[WebSocketRoute("/ws/echo", echo)])
