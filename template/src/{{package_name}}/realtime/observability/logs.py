"""The log: structlog for the service, and the same format for what other libraries log."""

import asyncio
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum
from time import monotonic
from typing import Any, Final, TextIO, cast

import msgspec
import structlog
from litestar.logging.config import BaseLoggingConfig
from litestar.types import GetLogger
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from structlog.tracebacks import ExceptionDictTransformer

from ..settings import CoreSettings

MAX_VALUE: Final = 1000
"""Characters of one value in a line."""

MAX_LINES: Final = 100
"""Lines of one kind in a second; more are counted instead."""

ORDINARY: Final = frozenset({"debug", "info"})
"""The levels of which no line is left out."""

UNWRITABLE: Final = (OSError, ValueError, AttributeError)
"""What a stream raises that is broken or closed, and what `None` does in its place."""

lost: Final[Counter[str]] = Counter(unwritten=0, flood=0)
"""Lines that are not in the log, by the reason: standard error did not take them, or there were too many of a kind."""


class Logging(BaseLoggingConfig):
    """Configure the log as Litestar's `logging_config`; `socket.logger` and `request.logger` are loggers of structlog.

    Each event is one line on standard error: JSON for machines, or formatted for a terminal. Tracebacks do not show the
    values of variables, which in a handshake hold its cookies and its token.

    Args:
        settings: LOG_FORMAT and LOG_LEVEL.
    """

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self.log_exceptions = "never"  # the service logs each itself, once, with the id of the connection
        self.disable_stack_trace = set()
        self.exception_logging_handler = None

    def configure(self) -> GetLogger:
        """Configure structlog and `logging`.

        Returns:
            The function that returns a logger.
        """
        shared: list[structlog.typing.Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            _shorten,
        ]
        stream, floods = LogStream(sys.stderr), FloodLimit()
        if self._settings.log_format == "json" or (self._settings.log_format == "auto" and not stream.isatty()):
            rendering: list[structlog.typing.Processor] = [
                structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
                structlog.processors.JSONRenderer(serializer=_to_json),
            ]
        else:
            colors, formatter = stream.isatty(), structlog.dev.plain_traceback
            if colors:
                formatter = structlog.dev.RichTracebackFormatter(show_locals=False)
            rendering = [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=formatter)]
        structlog.configure(
            processors=[floods.process, *shared, *rendering],
            wrapper_class=structlog.make_filtering_bound_logger(self._settings.log_level),
            logger_factory=lambda *_: structlog.WriteLogger(cast("TextIO", stream)),  # five times faster than `logging`
            cache_logger_on_first_use=False,
        )
        handler = logging.StreamHandler(stream)
        handler.addFilter(
            lambda record: record.levelno < logging.WARNING or floods.allows(f"{record.name}: {record.msg}")
        )
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared,
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            )
        )
        logging.basicConfig(handlers=[handler], level=self._settings.log_level, force=True)
        for name in ("uvicorn.error", "uvicorn.access"):
            uvicorn = logging.getLogger(name)
            uvicorn.setLevel(logging.WARNING)  # below, it logs the query of each request, which may hold a token
            uvicorn.addFilter(_drop_client_caused_errors)
        return structlog.get_logger

    @staticmethod
    def set_level(logger: Any, level: int) -> None:
        """Set the level of a logger, as Litestar asks to."""
        logger.setLevel(level)


def _drop_client_caused_errors(record: logging.LogRecord) -> bool:
    """Drop the errors of uvicorn that any client can cause. The service logs both itself, at a lower level.

    They are the traceback for text that is not UTF-8, and the error for each handshake that is rejected with a status.
    """
    return not str(record.msg).startswith(("Invalid UTF-8", "ASGI callable returned without completing handshake"))


class LogStream:
    """Standard error, which may break while the service runs: a reader that is gone, a disk that is full.

    Lines that it does not take are counted. Nothing raises, and nothing is buffered, so that the process ends cleanly.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._descriptor: int | None = None
        with suppress(*UNWRITABLE):  # a stream in memory, in tests, or none at all
            self._descriptor = stream.fileno()  # type: ignore[union-attr]

    def write(self, text: str) -> None:
        """Write lines, or count them."""
        data = text.encode(errors="backslashreplace")
        try:
            if self._descriptor is None:
                self._stream.write(text)  # type: ignore[union-attr]
            while self._descriptor is not None and data:
                data = data[os.write(self._descriptor, data) :]
        except UNWRITABLE:
            lost["unwritten"] += max(text.count("\n"), 1)

    def flush(self) -> None:
        """Do nothing: everything is written at once."""

    def isatty(self) -> bool:
        """Return whether somebody reads it in a terminal."""
        return self._stream is not None and self._stream.isatty()


class FloodLimit:
    """Drop log lines of one kind beyond a number per second, and log how many were dropped."""

    def __init__(self) -> None:
        self._second = 0
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def process(self, _: Any, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Count a line of the service, as a processor of structlog."""
        if level not in ORDINARY and not self.allows(f"{event['event']} {event.get('reason', '')}".rstrip()):
            raise structlog.DropEvent
        return event

    def allows(self, kind: str) -> bool:
        """Count a line, and return whether it is to be written."""
        if self._second != (now := int(monotonic())):
            self._second = now
            self._report()
        self._written[kind] += 1
        if self._written[kind] <= MAX_LINES:
            return True
        if not self._left_out:
            with suppress(RuntimeError):  # in a thread without a loop, the next line reports it
                asyncio.get_running_loop().call_later(1, self._report)
        self._left_out[kind] += 1
        lost["flood"] += 1
        return False

    def _report(self) -> None:
        left_out, self._left_out = self._left_out, Counter()
        self._written.clear()
        for kind, lines in left_out.items():
            structlog.get_logger(__name__).warning("log lines left out", kind=kind, lines=lines)


class LogCollector(Collector):
    """Count the lines that are not in the log, as a metric for Prometheus."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        family = CounterMetricFamily("log_lines_lost", "Lines that are not in the log, by reason", labels=["reason"])
        for reason, lines in lost.items():
            family.add_metric([reason], lines)
        yield family


def _to_json(event: structlog.typing.EventDict, default: Callable[[Any], Any]) -> str:
    """Encode a line in ASCII: with msgspec, at a fourth of the cost, or with `json`, which takes more."""
    with suppress(TypeError, ValueError, OverflowError):
        if (line := msgspec.json.encode(event, enc_hook=default)).isascii():
            return line.decode()
    return json.dumps(event, default=default, separators=(",", ":"))


def _shorten(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut long values, and write the names of numbers, such as close codes, as numbers."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_VALUE:
            event[key] = f"{value[:MAX_VALUE]}… ({len(value)} characters)"
        elif isinstance(value, IntEnum):
            event[key] = int(value)
    return event
