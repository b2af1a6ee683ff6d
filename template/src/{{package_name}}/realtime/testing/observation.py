"""An application under observation: what it sends, and does not document."""

from typing import Any

import msgspec
from litestar import Litestar
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import source_location
from ..handlers.route_handler import ListenerRouteHandler
from ..internals import function_of
from .client import without_reserved


class UndocumentedMessages:
    """Listens to what an application sends.

    Args:
        app: The application; from now on it answers through this.
    """

    def __init__(self, app: Litestar) -> None:
        self.found: list[str] = []
        """A line for each message that no listener has declared."""
        self._next_app: ASGIApp = app.asgi_handler
        app.asgi_handler = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found: Any = scope  # its types are partly unknown

        async def send_and_look(message: Message) -> None:
            handler = found.get("route_handler")
            if message["type"] == "websocket.send" and isinstance(handler, ListenerRouteHandler):
                frame = message["text"] if message.get("text") is not None else message["bytes"]
                if not any(_is(frame, declared.raw, handler) for declared in handler.sent_types()):
                    self.found.append(
                        f"{source_location(function_of(handler))} lets clients receive {frame!r} and does not declare "
                        "it.\nFix: return it, or name its Struct, as in sends=Joined | Left."
                    )
            await send(message)

        await self._next_app(scope, receive, send_and_look)


def _is(frame: str | bytes | None, kind: Any, handler: ListenerRouteHandler) -> bool:
    """Say whether a frame holds a message of this type, and nothing more."""
    if kind in {str, bytes}:
        return isinstance(frame, kind)
    frame = without_reserved(frame)
    try:
        message = msgspec.json.decode(frame or "", type=kind, dec_hook=handler.default_deserializer)
    except msgspec.DecodeError:
        return False
    again = msgspec.json.decode(msgspec.json.encode(message, enc_hook=handler.default_serializer))
    return bool(again == msgspec.json.decode(frame or ""))
