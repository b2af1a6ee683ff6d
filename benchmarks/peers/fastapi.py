"""Plain FastAPI, with the JSON that it brings."""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from . import ID

app = FastAPI()


@app.websocket("/ws/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            data = await socket.receive_json()
            await socket.send_json({"type": "said", "text": data["text"], "connection": ID, "count": 1})
    except WebSocketDisconnect:
        pass
