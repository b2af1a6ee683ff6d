"""Yours: the state of one connection. `copier update` never touches this file."""

from dataclasses import dataclass

from .realtime import ConnectionInfo


@dataclass(slots=True, kw_only=True, eq=False)
class Connection(ConnectionInfo):
    """The state of one connection. Hooks and handlers get the same object, and no other connection sees it.

    It has `id`, `accepted_at`, `client` and `user` from `ConnectionInfo`. Add the fields that your service needs, each
    with a default: `field(default_factory=list)` for a list.
    """

    count: int = 0
    """How many messages it has sent to /ws/echo; only echo uses it."""
