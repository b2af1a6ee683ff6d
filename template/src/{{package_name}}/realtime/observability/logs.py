"""The template's: the log, structlog for the service and the same shape for what other libraries say."""

import logging
import sys
from typing import Any

import structlog
from litestar.logging.config import BaseLoggingConfig
from litestar.types import GetLogger
from structlog.tracebacks import ExceptionDictTransformer

from ..settings import CoreSettings


class Logging(BaseLoggingConfig):
    """Litestar's hook to configure the log; `socket.logger` and `request.logger` are structlog's.

    One line for each event, to standard error: JSON for machines, or readable in a terminal. Tracebacks come without
    the values of variables: those of a handshake hold its cookies and its token.
    """

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self.log_exceptions = "never"  # the service logs them itself, once, with the connection's id
        self.disable_stack_trace = set()
        self.exception_logging_handler = None

    def configure(self) -> GetLogger:
        shared: list[structlog.typing.Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
        ]
        if self._settings.log_format == "json" or (self._settings.log_format == "auto" and not sys.stderr.isatty()):
            rendering: list[structlog.typing.Processor] = [
                structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
                structlog.processors.JSONRenderer(),
            ]
        else:
            formatter = structlog.dev.RichTracebackFormatter(show_locals=False)
            rendering = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=formatter)]
        structlog.configure(
            processors=[*shared, *rendering],
            wrapper_class=structlog.make_filtering_bound_logger(self._settings.log_level),
            logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),  # `logging` would cost five times as much
            cache_logger_on_first_use=False,
        )
        handler = logging.StreamHandler()
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared,
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            )
        )
        root = logging.getLogger()
        root.handlers = [handler]
        root.setLevel(self._settings.log_level)
        uvicorn = logging.getLogger("uvicorn.error")
        uvicorn.setLevel(logging.WARNING)  # its lines about single sockets hold the query, where a token may stand
        uvicorn.addFilter(_not_at_will)
        return structlog.get_logger

    @staticmethod
    def set_level(logger: Any, level: int) -> None:
        logger.setLevel(level)


def _not_at_will(record: logging.LogRecord) -> bool:
    """Drop the errors of uvicorn that any stranger could cause at will; the service logs both as what they are.

    They are the traceback for text that is not UTF-8, and the complaint about each handshake refused with a status.
    """
    return not str(record.msg).startswith(("Invalid UTF-8", "ASGI callable returned without completing handshake"))
