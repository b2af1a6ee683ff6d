"""The answer to a handshake that is not accepted: a real HTTP status, where the server can send one."""

from contextlib import suppress
from http import HTTPStatus
from typing import Any

from litestar.types import Send
from websockets.frames import CloseCode

from .cause import truncate_reason

EXTENSION = "websocket.http.response"  # ASGI: "WebSocket Denial Response"


async def refuse(scope: dict[str, Any], send: Send, status: int, detail: str) -> None:
    """Refuse a handshake that has not been accepted yet.

    Without the ASGI extension, the server turns the close into a bare 403. A client that is gone already is no error.
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
            headers.append((b"www-authenticate", b"Bearer"))  # a 401 has to name a scheme (RFC 9110, 15.5.2)
        answer: list[Any] = [  # not in Litestar's types of ASGI messages
            {"type": "websocket.http.response.start", "status": status, "headers": headers},
            {"type": "websocket.http.response.body", "body": body, "more_body": False},
        ]
        for message in answer:
            await send(message)
