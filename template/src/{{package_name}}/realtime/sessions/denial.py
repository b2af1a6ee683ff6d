"""The response to a handshake that is not accepted: a real HTTP status, where the server can send one."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from websockets.frames import CloseCode

from .cause import truncate_reason

EXTENSION: Final = "websocket.http.response"
"""ASGI's "WebSocket Denial Response"."""


async def deny(scope: dict[str, Any], send: Callable[[Any], Awaitable[None]], status: int, detail: str) -> None:
    """Send a denial response.

    Without the ASGI extension, the server turns the close into a bare 403. A client that is gone is not an error.

    Args:
        scope: The scope of a handshake that is not answered yet.
        send: The server's `send`.
        status: The HTTP status.
        detail: The body of the response, as text.
    """
    with suppress(OSError):
        if EXTENSION not in (scope.get("extensions") or ()):
            await send(
                {"type": "websocket.close", "code": CloseCode.POLICY_VIOLATION, "reason": truncate_reason(detail)}
            )
            return
        body = detail.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        if status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))  # a 401 must name a scheme (RFC 9110, 15.5.2)
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
