"""What every connection knows about itself. Your own fields go into `Connection`, in `state.py`."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4


@dataclass(slots=True, kw_only=True, eq=False)
class ConnectionInfo:
    """The fields that the wiring fills; `Connection` inherits them. Compared by identity, so it fits in a set."""

    id: str = field(default_factory=lambda: uuid4().hex)
    """Unique for each connection; stands in the messages, in the log, and in the hooks."""
    accepted_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the handshake was accepted, in UTC."""
    client: str = ""
    """The client's address, without the port; empty where the server does not know it."""
    user: str = ""
    """Who connected, as the authentication says; empty where there is none."""
