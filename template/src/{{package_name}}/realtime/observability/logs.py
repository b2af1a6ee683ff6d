"""The log: structlog for the service, and the same format for what other libraries log."""

import logging
import sys
from typing import Any

import structlog
from litestar.logging.config import BaseLoggingConfig
from litestar.types import GetLogger
from structlog.tracebacks import ExceptionDictTransformer

from ..settings import CoreSettings


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
            logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),  # five times faster than `logging`
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
        uvicorn.setLevel(logging.WARNING)  # below, it logs the query of each socket, which may hold a token
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
