"""OpenTelemetry: the spans of a real service arrive at a collector, and nothing secret is in them."""

import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .rendering import names
from .service import TIMEOUT, render_with_probe, running

SECRET = "token-that-must-not-leak"  # noqa: S105
HEADERS = {"Authorization": f"Bearer {SECRET}", "Cookie": f"token={SECRET}"}


class Collector(ThreadingHTTPServer):
    """Keep the bodies of POST /v1/traces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> dict[str, list[dict[str, str]]]:
        """Return the attributes of the spans, by name; each also has the name of its service."""
        found: dict[str, list[dict[str, str]]] = {}
        for body in self.bodies:
            request: Any = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    both = [*resource.resource.attributes, *span.attributes]
                    found.setdefault(span.name, []).append({each.key: each.value.string_value for each in both})
        return found


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            cast("Collector", self.server).bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        serving = Thread(target=collector.serve_forever)
        serving.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        yield collector
        collector.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def traced(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with telemetry, and with hooks that fail on demand; not to be changed."""
    return render_with_probe(template, tmp_path_factory.mktemp("traced") / "my-service", telemetry="opentelemetry")


def open_echo(url: str, **options: Any) -> ClientConnection:
    opening: Any = connect  # its own types are partly unknown
    return cast("ClientConnection", opening(url, proxy=None, **options))


@pytest.mark.parametrize("convention", ["", "http"], ids=["old names", "new names"])
def test_spans_arrive_and_no_token_is_in_them(
    traced: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, convention: str
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", convention)
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", ".*")  # as careless as can be
    with running(traced, drain_seconds=0) as service:
        url = service.url(f"/ws/echo?token={SECRET}")
        with open_echo(url, additional_headers=HEADERS, subprotocols=["bearer", SECRET]) as client:
            for _ in range(5):
                client.send('{"type":"say","text":"hi"}')
                assert "said" in str(client.recv(timeout=10))
        assert service.get(f"/health?token={SECRET}")[0] == 200
        assert service.ended(signal.SIGTERM) == 0
        assert not service.complaints
    assert SECRET.encode() not in b"".join(collector.bodies)
    spans = collector.spans
    assert {name: len(found) for name, found in spans.items()} == {"/ws/echo": 1, "GET /health": 1}
    assert {span["service.name"] for found in spans.values() for span in found} == {"my-service"}
    assert "http.request.header.host" in spans["/ws/echo"][0]  # the headers were asked for
    assert b"user_agent" not in b"".join(collector.bodies)


@pytest.mark.usefixtures("collector")
def test_the_application_sees_the_whole_query(traced: Path) -> None:
    with running(traced, drain_seconds=0) as service:
        with service.connect("accept=raise-after", proxy=None) as client, pytest.raises(ConnectionClosed):
            client.recv(timeout=10)
        assert service.ended(signal.SIGTERM) == 0
        assert "after it acquired something" in str(service.complaints)


def test_a_collector_that_does_not_answer_does_not_hold_up_the_stop(
    traced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as deaf:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{deaf.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")  # else it would give up by itself
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with running(traced, drain_seconds=0, hook_seconds=1) as service:
            assert service.get("/health")[0] == 200
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(TIMEOUT) == 0


def test_a_project_without_it_does_not_name_it(default_project: Path) -> None:
    assert [path for path in names(default_project) if b"opentelemetry" in path.read_bytes().lower()] == []
