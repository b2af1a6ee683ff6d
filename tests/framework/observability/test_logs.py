"""the log. What a handler causes carries the id of its connection, also through libraries, tasks and
threads; and no secret is in a traceback.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO
from time import monotonic

import pytest
import structlog
from litestar import Litestar, get
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery
from litestar.testing import TestClient
from websockets.frames import CloseCode

from my_service import hooks
from my_service.app import create_app
from my_service.realtime import Socket, listener
from my_service.realtime.observability.logs import Logging, lost
from my_service.realtime.sessions.plugin import Sessions
from my_service.realtime.testing import credentials
from my_service.settings import Settings
from my_service.state import Connection


@pytest.fixture(autouse=True)
def _the_log_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


def log_everywhere(text: str) -> None:
    structlog.get_logger("ours").info("said", text=text)
    logging.getLogger("a.library").warning("said %s", text)


async def log_in_a_task(text: str) -> None:
    await asyncio.sleep(0)
    log_everywhere(text)


@listener("/")
async def handler(data: str, connection: NamedDependency[Connection]) -> str:
    log_everywhere(data)
    await asyncio.gather(log_in_a_task(data), log_in_a_task(data))
    await asyncio.to_thread(log_everywhere, data)
    return connection.id


def test_each_line_that_a_handler_causes_carries_its_connection(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(log_format="json")
    sessions = Sessions(settings, Connection, hooks)
    app = Litestar([handler], plugins=[sessions], logging_config=Logging(settings))
    with (
        TestClient(app) as client,
        client.websocket_connect("/") as one,
        client.websocket_connect("/") as other,
    ):
        ids: dict[str, str] = {}
        for word in ("first", "second"):
            for name, socket in (("one", one), ("other", other)):
                socket.send_text(f"{word} of {name}")
                ids[name] = socket.receive_text(timeout=20)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    said = [(line["connection"], line.get("text") or line["event"]) for line in lines if line["event"][:4] == "said"]
    assert len(said) == 4 * 8
    for connection, text in said:
        name = str(text).rpartition(" ")[2]
        assert connection == ids[name]
    for event in ("connection accepted", "connection closed"):
        assert {line["connection"] for line in lines if line["event"] == event} == set(ids.values())


@pytest.mark.parametrize("value", ["hi", "h\xed", "\x9b2J\u2028", "\ud800", 2**70, {"a": [1.5, None]}])
def test_whatever_is_logged_is_one_line_of_json_in_ascii(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    Logging(Settings(log_format="json")).configure()
    structlog.get_logger("ours").info("said", value=value)
    [line] = capsys.readouterr().err.splitlines()
    assert line.isascii()
    assert json.loads(line)["value"] == value


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_holds_no_values_of_variables(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    Logging(Settings.load(log_format=log_format)).configure()

    def fail(cookie: str) -> None:
        raise RuntimeError(len(cookie))

    try:
        fail("".join(["not", "-", "for", "-", "the", "-", "log"]))
    except RuntimeError:
        structlog.get_logger().exception("failed")
    written = capsys.readouterr().err
    assert "RuntimeError" in written
    assert "not-for-the-log" not in written


class Broken(StringIO):
    """Standard error on a full disk, or behind a reader that is gone."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [Broken(), None], ids=["broken", "closed"])
@pytest.mark.parametrize("log_format", ["json", "console", "auto"])
def test_a_broken_standard_error_harms_nobody_and_is_counted(
    stream: StringIO | None, log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    app = create_app()
    Logging(Settings.load(log_format=log_format)).configure()
    before = lost["unwritten"]
    with TestClient(app) as client, client.websocket_connect("/ws/echo", headers=credentials()) as socket:
        socket.send_json({"type": "say", "text": "hi"})
        assert socket.receive_json(timeout=20)["text"] == "hi"
        logging.getLogger("a.library").error("said %s", "\ud800")
        structlog.get_logger().error("said", text="\ud800")
        metrics = client.get("/metrics").text
    assert lost["unwritten"] >= before + 3
    assert 'log_lines_lost_total{reason="unwritten"}' in metrics


def test_a_flood_is_counted_instead_and_the_connections_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    Logging(Settings.load(log_format="json")).configure()
    log = structlog.get_logger()

    async def flood() -> int:
        began = int(monotonic())
        for number in range(1000):
            log.warning("handshake rejected", reason="origin", path=f"/{number}" + "x" * 8000)
            log.info("connection closed", number=number)
            logging.getLogger("a.library").warning("failed %s", number)
        log.warning("handshake rejected", reason="full")
        seconds = int(monotonic()) - began + 1
        await asyncio.sleep(1.5)  # no line follows
        return seconds

    seconds = asyncio.run(flood())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    refused = [line for line in lines if line["event"] == "handshake rejected" and line["reason"] == "origin"]
    assert 100 <= len(refused) <= 100 * seconds
    assert max(len(line["path"]) for line in refused) < 1100
    assert len([line for line in lines if line["event"] == "connection closed"]) == 1000
    assert [line for line in lines if line.get("reason") == "full"]
    left_out = {str(line["kind"]): 0 for line in lines if line["event"] == "log lines left out"}
    for line in lines:
        if line["event"] == "log lines left out":
            left_out[str(line["kind"])] += line["lines"]
    assert left_out["handshake rejected origin"] == 1000 - len(refused)
    assert sum(left_out.values()) > 1000


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_close_codes_are_numbers(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    Logging(Settings.load(log_format=log_format)).configure()
    structlog.get_logger().info("closed", code=CloseCode.GOING_AWAY)
    written = capsys.readouterr().err
    assert "1001" in written
    assert "GOING_AWAY" not in written


@get("/items")
async def items(after: FromQuery[int]) -> int:
    return after


@listener("/needs")
async def needs(data: str, after: FromQuery[int], socket: Socket) -> None: ...


@pytest.mark.parametrize("query", ["token=SECRET&after=abc", "token=SECRET", "token=SECRET&after=%FF", "after=SECRET"])
def test_the_query_is_in_no_line_and_no_answer(query: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings.load(log_format="json")
    app = Litestar([items, needs], plugins=[Sessions(settings, Connection, hooks)], logging_config=Logging(settings))
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client's own lines
    with TestClient(app) as client:
        answers = [client.get(f"{path}?{query}") for path in ("/items", "/nothing", "/needs")]
        assert [answer.status_code for answer in answers] == [400, 404, 400]
        assert "SECRET" not in "".join(answer.text for answer in answers)
        for path in ("/needs", "/nothing", "/items"):
            with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect(f"{path}?{query}"):
                pass
            assert "SECRET" not in str(refused.value)
    written = capsys.readouterr().err
    assert written.count("handshake rejected") == 4
    assert "SECRET" not in written
    assert "Traceback" not in written
