"""The real-time framework of this service: import its names from here, and in tests from `realtime.testing`.

The folder is the template's: `copier update` replaces it. README.md beside this file is the reference.
"""

from .errors import ConfigurationError
from .fanout.broker import FanoutUnavailableError
from .fanout.messages import Gap
from .fanout.plugin import Fanout
from .handlers.listener import Listener, listener
from .handlers.messages import ErrorMessage, MessageError
from .parts import RealtimeSettings
from .plugin import Realtime
from .sessions.cause import Cause, Reason
from .sessions.info import ConnectionInfo
from .sessions.lifespan import connection_lifespan
from .sessions.session import Socket

__all__ = (
    "Cause",
    "ConfigurationError",
    "ConnectionInfo",
    "ErrorMessage",
    "Fanout",
    "FanoutUnavailableError",
    "Gap",
    "Listener",
    "MessageError",
    "Realtime",
    "RealtimeSettings",
    "Reason",
    "Socket",
    "connection_lifespan",
    "listener",
)
