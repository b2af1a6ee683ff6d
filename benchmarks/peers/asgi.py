"""Bare ASGI: what uvicorn itself takes, with the JSON of msgspec and no framework."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from . import ID


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        text = msgspec.json.decode(event["text"])["text"]
        said = msgspec.json.encode({"type": "said", "text": text, "connection": ID, "count": 1})
        await send({"type": "websocket.send", "text": said.decode()})
