"""What a server's `websocket.disconnect` event says about the end of a connection."""

from typing import Final

from litestar.types import ReceiveMessage
from websockets.frames import CloseCode

from .cause import Cause, Reason

PROTOCOL_CODES: Final = frozenset({CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG})
"""The close codes that a server sends by itself: a broken frame, text that is not UTF-8, a message too big."""


def cause_of_disconnect(message: ReceiveMessage) -> Cause:
    """Return the cause in a `websocket.disconnect` event.

    Servers give 1005 both to a client that closes without a code and to a connection that is lost. Only the first comes
    with a `reason`, because only the first had a close frame.
    """
    code = int(message.get("code", CloseCode.NO_STATUS_RCVD))  # type: ignore[call-overload]
    if code in {CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE} and "reason" not in message:
        return Cause(Reason.CONNECTION_LOST, code)
    if code == CloseCode.SERVICE_RESTART and "reason" not in message:
        return Cause(Reason.SERVICE_RESTARTS, code)
    if code in PROTOCOL_CODES:
        return Cause(Reason.PROTOCOL_ERROR, code)
    return Cause(Reason.CLIENT_CLOSED, code)
