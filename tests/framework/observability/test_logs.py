"""the log. What a handler causes carries the id of its connection, also through libraries, tasks and
threads; and no secret is in a traceback.
"""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from litestar import Litestar
from litestar.di import NamedDependency
from litestar.testing import TestClient

from my_service import hooks
from my_service.realtime import listener
from my_service.realtime.observability.logs import Logging
from my_service.realtime.sessions.plugin import Sessions
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
