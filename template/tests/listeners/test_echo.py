"""Yours: what /ws/echo does."""

from litestar import Litestar
from litestar.testing import TestClient
from litestar.testing.websocket_test_session import WebSocketTestSession


def echo(socket: WebSocketTestSession, text: str) -> tuple[str, str, int]:
    socket.send_json({"type": "say", "text": text})
    answer = socket.receive_json(timeout=20)
    assert answer["type"] == "said"
    return answer["text"], answer["connection"], answer["count"]


def test_it_answers_with_the_same_text(client: TestClient[Litestar]) -> None:
    with client.websocket_connect("/ws/echo") as socket:
        assert echo(socket, "hi")[0] == "hi"


def test_each_connection_counts_its_own_messages(client: TestClient[Litestar]) -> None:
    with client.websocket_connect("/ws/echo") as one, client.websocket_connect("/ws/echo") as other:
        assert [echo(one, "a")[2], echo(other, "b")[2], echo(one, "c")[2], echo(other, "d")[2]] == [1, 1, 2, 2]
        assert echo(one, "e")[1] != echo(other, "f")[1]


def test_a_late_connection_begins_anew(client: TestClient[Litestar]) -> None:
    with client.websocket_connect("/ws/echo") as socket:
        echo(socket, "a")
    with client.websocket_connect("/ws/echo") as socket:
        assert echo(socket, "b")[2] == 1
