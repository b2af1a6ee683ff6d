"""Yours: /ws/echo, a listener as a function."""

from litestar.di import NamedDependency

from ..messages import Said, Say
from ..realtime import listener
from ..state import Connection


@listener("/ws/echo")
async def echo(data: Say, connection: NamedDependency[Connection]) -> Said:
    """Answer each message with itself and the connection's own count."""
    connection.count += 1
    return Said(text=data.text, connection=connection.id, count=connection.count)
