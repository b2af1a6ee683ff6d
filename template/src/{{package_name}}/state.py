"""Yours: what one connection remembers. `copier update` never touches this file."""

from dataclasses import dataclass

from .realtime import ConnectionInfo


@dataclass(slots=True, kw_only=True, eq=False)
class Connection(ConnectionInfo):
    """The state of one connection: made for it alone, and gone with it.

    Hooks and handlers get the same object. It has `id`, `accepted_at` and `client` from `ConnectionInfo`; add what your
    service needs to remember. Each field needs a default: `field(default_factory=list)` for a list.
    """

    count: int = 0
    """How many messages it has said to /ws/echo."""
