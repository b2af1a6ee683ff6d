"""What an exception means for a connection: one table, and one rule for groups."""

from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

import pytest
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    NotAuthorizedException,
    PermissionDeniedException,
    ServiceUnavailableException,
    WebSocketDisconnect,
    WebSocketException,
)

from my_service.realtime import Cause, FanoutUnavailableError, Reason
from my_service.realtime.sessions.cause import (
    CLOSE_CODES,
    Resolution,
    cause_of_disconnect,
    is_sendable,
    resolve_cause,
    truncate_reason,
)

BUG = RuntimeError("secret")
GONE = WebSocketDisconnect(detail="gone", code=1006)
CANCELLED = CancelledError()
DENIED = PermissionDeniedException("not you")
AWAY = ServiceUnavailableException("come back")
OWN = WebSocketException(detail="game over", code=4001)

DONE = Resolution(Reason.SERVICE_CLOSED, 1000)
REFUSED = Resolution(Reason.SERVICE_CLOSED, 1008, "not you", 403)
BACK = Resolution(Reason.SERVICE_CLOSED, 1013, "come back", 503)
OVER = Resolution(Reason.SERVICE_CLOSED, 4001, "game over")
STOPPED = Resolution(Reason.CANCELLED, 1011, "cancelled", error=CANCELLED)


def bug(error: BaseException, reason: Reason = Reason.HANDLER_FAILED) -> Resolution:
    return Resolution(reason, 1011, "internal error", 500, error, is_bug=True)


UNSENDABLE = WebSocketException(detail="x", code=1005)
SERVER_ERROR = InternalServerException("secret")
TEAPOT = HTTPException("short and stout", status_code=418)
EXIT = SystemExit(1)

TABLE: list[tuple[str, BaseException | None, Resolution]] = [
    ("the handler returned", None, DONE),
    ("the client is gone", GONE, DONE),
    ("a close code of its own", OWN, OVER),
    ("a close code that may not be sent", UNSENDABLE, bug(UNSENDABLE)),
    ("permission denied", DENIED, REFUSED),
    ("not authorized", NotAuthorizedException("who"), Resolution(Reason.SERVICE_CLOSED, 1008, "who", 401)),
    ("any status below 500", TEAPOT, Resolution(Reason.SERVICE_CLOSED, 1008, "short and stout", 418)),
    ("unavailable on purpose", AWAY, BACK),
    ("the fan-out is unavailable", FanoutUnavailableError("x"), Resolution(Reason.SERVICE_CLOSED, 1013, "x", 503)),
    ("a status from 500", SERVER_ERROR, bug(SERVER_ERROR)),
    ("a bug", BUG, bug(BUG)),
    ("an exit", EXIT, bug(EXIT)),
    ("cancelled", CANCELLED, STOPPED),
]

GROUPS: list[tuple[str, list[BaseException], Resolution]] = [
    ("a disconnect", [GONE], DONE),
    ("disconnects", [GONE, GONE], DONE),
    ("a denial", [DENIED], REFUSED),
    ("a denial and a disconnect", [GONE, DENIED], REFUSED),
    ("a disconnect and a cancellation", [GONE, CANCELLED], STOPPED),
    ("a cancellation and a close", [CANCELLED, OWN, GONE], OVER),
    ("the first of two", [AWAY, OWN], BACK),
]


@pytest.mark.parametrize(("error", "resolution"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_an_exception_has_one_meaning(error: BaseException | None, resolution: Resolution) -> None:
    assert resolve_cause(error) == resolution


def nested(errors: list[BaseException]) -> Iterator[BaseExceptionGroup[BaseException]]:
    yield BaseExceptionGroup("flat", errors)
    yield BaseExceptionGroup("one in one", [BaseExceptionGroup("inner", errors)])
    yield BaseExceptionGroup("each alone", [BaseExceptionGroup("inner", [error]) for error in errors])


@pytest.mark.parametrize(("errors", "resolution"), [row[1:] for row in GROUPS], ids=[row[0] for row in GROUPS])
def test_a_group_means_what_it_holds(errors: list[BaseException], resolution: Resolution) -> None:
    assert [resolve_cause(group) for group in nested(errors)] == [resolution] * 3


@pytest.mark.parametrize("errors", [[BUG], [GONE, BUG], [DENIED, CANCELLED, BUG], [OWN, UNSENDABLE]])
def test_a_group_with_a_bug_is_a_bug_with_the_whole_group_as_its_error(errors: list[BaseException]) -> None:
    for group in nested(errors):
        assert resolve_cause(group) == bug(group)


def test_what_on_accept_raises_is_its_own_reason() -> None:
    assert resolve_cause(BUG, initializing=True) == bug(BUG, Reason.INITIALIZATION_FAILED)
    assert resolve_cause(DENIED, initializing=True) == REFUSED


def test_a_cancellation_while_the_service_drains_is_a_restart() -> None:
    restart = Resolution(Reason.SERVICE_RESTARTS, 1012, "service restarts", error=CANCELLED)
    assert resolve_cause(CANCELLED, draining=True) == restart
    assert resolve_cause(BaseExceptionGroup("", [GONE, CANCELLED]), draining=True) == restart
    assert resolve_cause(BUG, draining=True) == bug(BUG)


def test_no_endpoint_may_send_what_stands_for_no_close_frame() -> None:
    assert [code for code in CLOSE_CODES if not is_sendable(code)] == [1005, 1006]
    assert not any(map(is_sendable, (0, 999, 1004, 1015, 2999, 5000)))
    assert all(map(is_sendable, (3000, 4000, 4999)))


def test_a_reason_is_cut_between_characters() -> None:
    assert truncate_reason("x" * 124) == "x" * 123
    assert truncate_reason("x" + "é" * 61 + "é") == "x" + "é" * 61
    assert truncate_reason("half a character: \ud800") == "half a character: ?"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, Reason.CLIENT_CLOSED),
        (1002, Reason.PROTOCOL_ERROR),
        (1005, Reason.CONNECTION_LOST),
        (1006, Reason.CONNECTION_LOST),
        (1007, Reason.PROTOCOL_ERROR),
        (1009, Reason.LIMIT_EXCEEDED),
        (1012, Reason.SERVICE_RESTARTS),
    ],
)
def test_a_close_frame_of_the_client_is_told_by_its_reason(code: int, reason: Reason) -> None:
    lost = reason is Reason.CONNECTION_LOST
    event: Any = {"type": "websocket.disconnect", "code": code}
    assert cause_of_disconnect(event) == Cause(reason, 1006 if lost else code)
    assert cause_of_disconnect(event | {"reason": ""}) == Cause(Reason.CLIENT_CLOSED, code)
