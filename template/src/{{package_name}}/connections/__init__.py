"""The wiring of the connections. The template's: `copier update` improves it; read it freely, edit it rarely.

| module       | what it is                                                               |
|--------------|--------------------------------------------------------------------------|
| lifespan.py  | `connection_lifespan`: accept, `on_accept`, messages, `on_disconnect`     |
| listener.py  | `@listener` and `Listener`: typed messages, that lifespan already inside  |
| info.py      | `ConnectionInfo`: what every connection knows about itself                |
| cause.py     | `Cause` and `Reason`: why a connection ended, and the close codes         |
| messages.py  | the answers to a bad message and to a ping                               |
| gate.py      | the handshake: who gets in, before anything is accepted                   |
| registry.py  | the open sockets, counted from before their first await                   |
| origin.py    | which pages may connect                                                  |
| limits.py    | how much one connection may send, and how long it may say nothing        |
| protocol.py  | what uvicorn's protocols lack: bounds on a peer that only waits          |
| drain.py     | a shutdown that closes every connection and awaits its clean-up           |
| metrics.py   | the numbers of all this, for Prometheus                                  |
| checks.py    | the mistakes with which the service does not start                        |
| plugin.py    | `Connections`: what `app.py` plugs into Litestar                          |
| internals.py | every touch of a private part of Litestar                                 |
"""

from .cause import Cause, Reason
from .checks import MistakeError
from .info import ConnectionInfo
from .lifespan import connection_lifespan
from .listener import Listener, listener
from .messages import ErrorMessage
from .plugin import Connections
from .registry import Socket

__all__ = (
    "Cause",
    "ConnectionInfo",
    "Connections",
    "ErrorMessage",
    "Listener",
    "MistakeError",
    "Reason",
    "Socket",
    "connection_lifespan",
    "listener",
)
