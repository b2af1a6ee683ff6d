"""The sessions of this node: each is counted before its first await, and leaves when its clean-up is done."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Registered(Protocol):
    """What the registry needs to know of a session."""

    @property
    def client(self) -> str:
        """The address of the client, without its port."""
        ...

    @property
    def user(self) -> str:
        """The user; "" where nobody has authenticated."""
        ...

    def identify(self, user: str) -> None:
        """Note who connected."""


Entry = TypeVar("Entry", bound=Registered)


class Registry(Generic[Entry]):
    """The sessions that are not closed yet, counted by address and by user."""

    def __init__(self) -> None:
        self._sessions: set[Entry] = set()
        self._by_user: dict[str, set[Entry]] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.by_address: Counter[str] = Counter()
        """The sessions of each client address."""
        self.draining = False
        """Whether new handshakes are rejected, because the service is about to stop."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over a copy: sessions come and go while the caller awaits."""
        return iter(tuple(self._sessions))

    def admit_handshakes(self) -> None:
        """Begin, or begin again, to let sessions in."""
        self.draining = False

    def begin_drain(self) -> None:
        """Let no new session in."""
        self.draining = True

    def add(self, session: Entry) -> None:
        """Count a session."""
        self._sessions.add(session)
        self._empty.clear()
        self.by_address[session.client] += 1

    def remove(self, session: Entry) -> None:
        """Forget a session whose clean-up is done."""
        self._sessions.remove(session)
        self.by_address[session.client] -= 1
        if not self.by_address[session.client]:
            del self.by_address[session.client]
        if sessions := self._by_user.get(session.user):
            sessions.discard(session)
            if not sessions:
                del self._by_user[session.user]
        if not self._sessions:
            self._empty.set()

    def acquire(self, session: Entry, user: str, limit: int) -> bool:
        """Count a session as one of a user's until it is removed.

        Nothing is awaited between the check and the count, so a burst of handshakes cannot exceed the limit.

        Args:
            session: A session whose user is known now.
            user: The name of its user.
            limit: Sessions that one user may have on this node. 0 lifts the limit.

        Returns:
            Whether it is counted; False where the user has as many sessions as are allowed.
        """
        sessions = self._by_user.setdefault(user, set())
        if 0 < limit <= len(sessions):
            return False
        sessions.add(session)
        session.identify(user)
        return True

    def of_user(self, user: str) -> tuple[Entry, ...]:
        """Return the sessions of a user."""
        return tuple(self._by_user.get(user, ()))

    async def wait_empty(self, seconds: float) -> bool:
        """Wait until every session is cleaned up.

        Args:
            seconds: How long to wait at most.

        Returns:
            Whether none is left.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
