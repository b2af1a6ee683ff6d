"""The engine `postgresql://`: NOTIFY tells every node that something was published, and tables keep it.

All goes through one NOTIFY channel, and each node picks what it listens to: PostgreSQL wakes every listener of a
database for each notification anyway.
"""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Collection, Sequence
from importlib import import_module
from typing import Any, Final, Self

from ..settings import Settings
from .link import Arrive, Depart, History, Link, Members, MistakenUrlError, Operation, Publish, Published, Pulse, Since

NAME: Final = __name__.partition(".")[0]
LARGEST_NOTIFICATION: Final = 7900
"""Bytes. PostgreSQL takes 7999; the sequence is added in front. What is larger is fetched from its table."""
FEWEST_KEPT: Final = 100
"""Messages of a channel that are kept even without history, for those who have to fetch a large one."""
HOPELESS: Final = ("password authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
"""What PostgreSQL says where only another URL helps. libpq has no code for what ends an attempt to connect."""

TABLES: Final = """
CREATE TABLE channel (
    name bytea PRIMARY KEY, began bigint NOT NULL, sequence bigint NOT NULL, used_at timestamptz NOT NULL
);
CREATE TABLE message (
    channel bytea, sequence bigint, id text NOT NULL, skipped text NOT NULL, message text NOT NULL,
    PRIMARY KEY (channel, sequence)
);
CREATE TABLE node (name text PRIMARY KEY, alive_until timestamptz NOT NULL);
CREATE TABLE presence (
    channel bytea, member bytea, node text, farewell bytea NOT NULL, PRIMARY KEY (channel, member, node)
);
CREATE INDEX ON presence (node);
CREATE FUNCTION microseconds() RETURNS bigint LANGUAGE sql VOLATILE
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint';
"""
"""In a schema of their own, with the name of the package."""

# A channel begins with the time, so that no number comes twice, whatever was forgotten. Its row is locked until the
# transaction ends, so messages are numbered in the order in which they are committed.
LOCK: Final = """
INSERT INTO channel SELECT %(channel)s, began, began, now() FROM microseconds() AS began
ON CONFLICT (name) DO UPDATE SET used_at = now() RETURNING began, sequence
"""
PUBLISH: Final = """
WITH next AS (
    INSERT INTO channel SELECT %(channel)s, began, began + 1, now() FROM microseconds() AS began
    ON CONFLICT (name) DO UPDATE SET sequence = channel.sequence + 1, used_at = now() RETURNING sequence
),
kept AS (INSERT INTO message SELECT %(channel)s, sequence, %(id)s, %(skipped)s, %(message)s FROM next),
trimmed AS (
    DELETE FROM message WHERE channel = %(channel)s AND sequence <= (SELECT sequence FROM next) - %(kept)s
)
SELECT sequence, pg_notify(%(notified)s, sequence || %(notification)s) FROM next
"""
# The farewell is the one that belongs to the `joined` that was told, on whatever node.
ARRIVE: Final = """
INSERT INTO presence SELECT %s, %s, %s, coalesce(
    (SELECT farewell FROM presence WHERE channel = %s AND member = %s LIMIT 1), %s
) ON CONFLICT DO NOTHING RETURNING 1
"""
ALIVE: Final = """
INSERT INTO node VALUES (%(node)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (name) DO UPDATE SET alive_until = excluded.alive_until RETURNING xmax <> 0
"""
FORGET: Final = """
WITH old AS (
    SELECT name FROM channel WHERE used_at < now() - make_interval(secs => %(seconds)s) FOR UPDATE SKIP LOCKED
), forgotten AS (DELETE FROM channel WHERE name IN (SELECT name FROM old))
DELETE FROM message WHERE channel IN (SELECT name FROM old)
"""
HISTORY: Final = """
SELECT message, sequence, skipped FROM message
WHERE channel = %(channel)s AND sequence > %(after)s ORDER BY sequence DESC LIMIT %(most)s
"""


class PostgresLink(Link):
    """Two connections: one hears, one asks."""

    keeps_history = True

    def __init__(self, hearing: Any, asking: Any, psycopg: Any, settings: Settings, node: str) -> None:
        self._hearing = hearing
        self._asking = asking
        self._psycopg = psycopg
        self._turn = asyncio.Lock()
        self._settings = settings
        self._node = node
        self._heard_pulse = asyncio.Event()
        self._listening: set[str] = set()

    @classmethod
    async def connect(cls, settings: Settings, node: str) -> Self:
        psycopg: Any = import_module("psycopg")
        opened: list[Any] = []

        async def open_one() -> Any:
            opened.append(await psycopg.AsyncConnection.connect(settings.fanout_url, autocommit=True))
            return opened[-1]

        try:
            hearing, asking = await open_one(), await open_one()
            link = cls(hearing, asking, psycopg, settings, node)
            await link._prepare()
        except BaseException as error:
            for connection in opened:
                await connection.close()
            lines = str(error).strip().splitlines()
            if isinstance(error, psycopg.OperationalError) and any(text in str(error) for text in HOPELESS):
                raise MistakenUrlError(f"PostgreSQL says: {lines[-1].rpartition('FATAL:')[2].strip()}") from None
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise MistakenUrlError(f"PostgreSQL says: {lines[0]}; the user has to create a schema, once") from None
            raise
        return link

    async def _prepare(self) -> None:
        await self._asking.execute("SELECT set_config('search_path', %s, false)", [NAME])
        async with self._asking.transaction():
            await self._asking.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [NAME])
            if not await self._value("SELECT to_regclass('presence')::oid"):
                await self._asking.execute(f'CREATE SCHEMA IF NOT EXISTS "{NAME}"')
                await self._asking.execute(TABLES)
        await self._hearing.execute(f'LISTEN "{NAME}"')

    async def listen(self, channels: Collection[str]) -> None:
        self._listening.update(channels)

    async def ignore(self, channels: Collection[str]) -> None:
        self._listening.difference_update(channels)

    async def events(self) -> AsyncIterator[tuple[str, Published]]:
        async for notification in self._hearing.notifies():
            sequence, skipped, name, *message = notification.payload.split(" ", 3)
            if sequence == "pulse":
                if name == self._node:
                    self._heard_pulse.set()
            elif (channel := b64decode(name).decode()) in self._listening:
                published = message[0] if message else await self._fetch(channel, int(sequence))
                if published is not None:
                    yield channel, Published(published.encode(), int(sequence), "" if skipped == "-" else skipped)
        raise ConnectionError("PostgreSQL sends no more notifications")

    async def _fetch(self, channel: str, sequence: int) -> str | None:
        query = "SELECT message FROM message WHERE channel = %s AND sequence = %s"
        async with self._turn:
            message: str | None = await self._value(query, [channel.encode(), sequence])
            return message

    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Do all in one transaction, in the order of the channels: two nodes never wait for each other in a circle."""
        order = sorted(range(len(operations)), key=lambda index: operations[index].channel)
        results: list[Any] = [None] * len(operations)
        try:
            async with self._turn, self._asking.transaction():
                for index in order:
                    results[index] = await self._apply(operations[index])
        except (self._psycopg.DataError, self._psycopg.IntegrityError, self._psycopg.ProgrammingError) as error:
            # One of them is at fault, and must not keep the others from being done.
            if len(operations) == 1:
                return [error]
            return [(await self.apply([operation]))[0] for operation in operations]
        return results

    async def _apply(self, operation: Operation[Any]) -> Any:
        channel = operation.channel.encode()
        match operation:
            case Publish(data=data, skipped=skipped, id=name, again=again):
                query = "SELECT sequence FROM message WHERE channel = %s AND id = %s"
                if again and (done := await self._value(query, [channel, name])):
                    return done
                return await self._publish(channel, data, skipped, name)
            case Since(after=after):
                [(began, sequence)] = await self._rows(LOCK, {"channel": channel})
                wanted = {"channel": channel, "after": after, "most": self._settings.history}
                rows = [] if after is None else await self._rows(HISTORY, wanted)
                messages = [Published(row[0].encode(), row[1], row[2]) for row in reversed(rows)]
                return History(began, sequence, messages)
            case Arrive(member=member, joined=joined, left=left):
                await self._value(LOCK, {"channel": channel})
                there = [channel, member.encode()]
                new = await self._value(ARRIVE, [*there, self._node, *there, left])
                if new and joined and await self._nodes(*there) == 1:
                    await self._publish(channel, joined)
            case Depart(member=member):
                await self._depart(channel, member.encode(), self._node)
            case Members():
                query = "SELECT DISTINCT member FROM presence WHERE channel = %s"
                return [row[0].decode() for row in await self._rows(query, [channel])]
            case _:
                raise TypeError(operation)
        return None

    async def _publish(self, channel: bytes, message: bytes, skipped: str = "", name: str = "") -> int:
        start = f" {skipped or '-'} {b64encode(channel).decode()}"
        whole = f"{start} {message.decode()}"
        given = {
            "channel": channel,
            "id": name,
            "skipped": skipped,
            "message": message.decode(),
            "kept": max(FEWEST_KEPT, self._settings.history),
            "notified": NAME,
            "notification": whole if len(whole.encode()) <= LARGEST_NOTIFICATION else start,
        }
        sequence: int = await self._value(PUBLISH, given)
        return sequence

    async def _depart(self, channel: bytes, member: bytes, node: str) -> None:
        await self._value(LOCK, {"channel": channel})
        query = "DELETE FROM presence WHERE channel = %s AND member = %s AND node = %s RETURNING farewell"
        farewell = await self._value(query, [channel, member, node])
        if farewell and not await self._nodes(channel, member):
            await self._publish(channel, bytes(farewell))

    async def _nodes(self, channel: bytes, member: bytes) -> int:
        query = "SELECT count(*) FROM presence WHERE channel = %s AND member = %s"
        count: int = await self._value(query, [channel, member])
        return count

    async def pulse(self) -> Pulse:
        self._heard_pulse.clear()
        async with self._turn, self._asking.transaction():
            known = await self._value(ALIVE, {"node": self._node, "seconds": self._settings.presence_seconds})
            await self._asking.execute("SELECT pg_notify(%s, %s)", [NAME, f"pulse - {self._node}"])
        async with self._turn, self._asking.transaction():
            dead = await self._rows("DELETE FROM node WHERE alive_until < now() RETURNING name")
            query = "SELECT channel, member, node FROM presence WHERE node = ANY(%s) ORDER BY channel"
            for channel, member, node in await self._rows(query, [[row[0] for row in dead]]):
                await self._depart(channel, member, node)
        async with self._turn:
            await self._asking.execute(FORGET, {"seconds": self._settings.history_seconds})
        await self._heard_pulse.wait()
        return Pulse("", known=known)

    async def entries(self) -> set[tuple[str, str]]:
        async with self._turn:
            rows = await self._rows("SELECT channel, member FROM presence WHERE node = %s", [self._node])
        return {(channel.decode(), member.decode()) for channel, member in rows}

    async def close(self) -> None:
        await self._hearing.close()
        await self._asking.close()

    async def _rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        cursor = await self._asking.execute(query, values)
        rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows

    async def _value(self, query: str, values: Any = None) -> Any:
        """Return the first column of the first row, or None."""
        cursor = await self._asking.execute(query, values)
        row = await cursor.fetchone()
        return row[0] if row else None
