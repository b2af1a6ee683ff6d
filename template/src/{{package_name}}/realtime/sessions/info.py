"""`ConnectionInfo`: the fields that every connection has. Your own fields go into `Connection`, in `state.py`."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from .cause import Cause


class SessionLink:
    """The link from a connection to its session. It is not a field, so `dataclasses.asdict` does not follow it."""

    __slots__ = ("__weakref__", "_session")

    _session: Any

    @property
    def cause(self) -> Cause | None:
        """The cause that ended the connection; None while it is open."""
        session = getattr(self, "_session", None)
        return (session.cause or session.noticed_cause) if session else None

    @property
    def claims(self) -> Mapping[str, Any]:
        """Further claims of the authentication about the user; empty without authentication."""
        access = self._session.access if hasattr(self, "_session") else None
        return access.claims if access else {}

    @property
    def roles(self) -> frozenset[str]:
        """The roles of the user, as the authentication names them; empty without authentication."""
        access = self._session.access if hasattr(self, "_session") else None
        return access.roles if access else frozenset()

    def start(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run a coroutine in a task that ends with the connection.

        The task has the context variables of the connection, and its id in the log. When the connection ends it is
        cancelled, and awaited for up to HOOK_SECONDS, before `on_disconnect` is called. If it raises, the connection
        is closed with 1011, and the exception is logged and in the cause. `WebSocketException` closes with its code.

        Args:
            coroutine: The coroutine to run.
            name: The name of the task.

        Returns:
            The task. It need not be kept.

        Raises:
            RuntimeError: The connection is not accepted yet, or it has ended.
        """
        if not hasattr(self, "_session"):
            coroutine.close()
            raise RuntimeError("this Connection belongs to no WebSocket, so no task can end with it")
        task: asyncio.Task[Any] = self._session.start(coroutine, name=name)
        return task

    async def send(self, message: Any) -> None:
        """Send a message to the client, as JSON; waits while the client reads slowly.

        Args:
            message: A Struct, or whatever a listener may return.

        Raises:
            RuntimeError: The connection is not accepted yet.
            WebSocketDisconnect: The connection has ended. If you send to another connection, catch this error;
                otherwise your own connection is closed too.
        """
        if not hasattr(self, "_session"):
            raise RuntimeError("this Connection belongs to no WebSocket, so nothing can be sent")
        await self._session.send_message(message)


@dataclass(slots=True, kw_only=True, eq=False)
class ConnectionInfo(SessionLink):
    """The fields that every connection has; `Connection` inherits them. Compared by identity, so it can be in a set.

    It can be weakly referenced.
    """

    id: str = field(default_factory=lambda: token_hex(16))
    """Unique for each connection; stands in the messages, in the log, and in the hooks."""
    accepted_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the handshake was accepted, in UTC."""
    client: str = ""
    """The client's address, without the port; empty where the server does not know it."""
    user: str = ""
    """Who connected, as the authentication says; empty where there is none."""
