"""The hooks: `on_disconnect` runs exactly once for every connection for which `on_accept` began."""

from contextlib import ExitStack

import pytest
from litestar.di import NamedDependency, Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath

from my_service.realtime import Cause, ConnectionInfo, Listener, Reason, Socket, listener

from ..recording import Hooks, Serve, capture_logs


@listener("/")
async def echo(data: str) -> str:
    return data


def fail(_: object = None) -> None:
    raise RuntimeError("a bug in a hook")


def test_cleanup_runs_when_initialization_fails(serve: Serve, hooks: Hooks) -> None:
    hooks.during_accept = fail
    with serve(echo) as client, capture_logs() as logs:
        with client.websocket_connect("/") as socket, pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_text(timeout=20)
        connection, cause = hooks.ended.get(timeout=20)
    assert ended.value.code == 1011
    assert (connection, cause.reason) == (hooks.accepted[0], Reason.INITIALIZATION_FAILED)
    assert hooks.ended.empty()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["initialization failed"]


def test_each_connection_is_cleaned_up_as_itself(serve: Serve, hooks: Hooks) -> None:
    with serve(echo) as client, client.websocket_connect("/") as one, client.websocket_connect("/") as other:
        other.close(4002)
        second = hooks.ended.get(timeout=20)
        one.close(4001)
        first = hooks.ended.get(timeout=20)
    assert [(connection, cause.code) for connection, cause in (first, second)] == [
        (hooks.accepted[0], 4001),
        (hooks.accepted[1], 4002),
    ]


def test_a_cleanup_that_fails_is_logged_and_hides_no_cause(serve: Serve, hooks: Hooks) -> None:
    hooks.during_disconnect = fail
    with ExitStack() as capturing, serve(echo) as client:  # until the client is left, which awaits the clean-up
        logs = capturing.enter_context(capture_logs())
        with client.websocket_connect("/"):
            pass
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["on_disconnect failed"]
    assert [line["reason"] for line in logs if line["event"] == "connection closed"] == ["client_closed"]


def test_on_accept_may_send_and_close(serve: Serve, hooks: Hooks) -> None:
    class Greeting(Listener):
        path = "/"

        async def on_accept(self, socket: Socket) -> None:
            await socket.send_text("welcome")
            await socket.close(4003, "that was all")

        async def on_receive(self, data: str) -> None: ...

    with serve(Greeting) as client:
        with client.websocket_connect("/") as socket:
            assert socket.receive_text(timeout=20) == "welcome"
        _, cause = hooks.ended.get(timeout=20)
    assert (cause.reason, cause.code) == (Reason.SERVICE_CLOSED, 4003)


def test_the_hooks_of_a_listener_run_inside_those_of_the_service(serve: Serve, hooks: Hooks) -> None:
    steps: list[str] = []

    async def greeting() -> str:
        return "hello"

    class Room(Listener):
        path = "/{room:str}"
        dependencies = {"greeting": Provide(greeting)}  # noqa: RUF012 (so Litestar names it)

        async def on_accept(
            self, connection: ConnectionInfo, room: FromPath[str], greeting: NamedDependency[str]
        ) -> None:
            steps.append(f"{greeting} {room} {connection is hooks.accepted[0]}")

        async def on_receive(self, data: str) -> str:
            return data

        async def on_disconnect(self, connection: ConnectionInfo, cause: Cause, room: FromPath[str]) -> None:
            steps.append(f"bye {room} {cause.code} {hooks.ended.empty()}")

    with serve(Room) as client:
        with client.websocket_connect("/kitchen") as socket:
            socket.close(4001)
        hooks.ended.get(timeout=20)
    assert steps == ["hello kitchen True", "bye kitchen 4001 True"]


def test_when_the_hook_of_a_listener_fails_both_are_cleaned_up(serve: Serve, hooks: Hooks) -> None:
    steps: list[Reason] = []

    class Failing(Listener):
        path = "/"

        async def on_accept(self) -> None:
            fail()

        async def on_receive(self, data: str) -> None: ...

        async def on_disconnect(self, cause: Cause) -> None:
            steps.append(cause.reason)

    with serve(Failing) as client:
        with client.websocket_connect("/") as socket, pytest.raises(WebSocketDisconnect):
            socket.receive_text(timeout=20)
        assert hooks.ended.get(timeout=20)[1].reason is Reason.INITIALIZATION_FAILED
    assert steps == [Reason.INITIALIZATION_FAILED]
