"""The engine `redis://`: Redis or Valkey. Channels are its pub/sub, history is a stream, each step a script."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from ..settings import Settings
from .link import Arrive, Depart, History, Link, Members, MistakenUrlError, Operation, Publish, Published, Pulse, Since

NAME = __name__.partition(".")[0]
SCRIPT = Path(__file__).with_suffix(".lua").read_text()
AILING = ("LOADING", "OOM", "BUSY", "MISCONF", "NOREPLICAS")
"""What Redis says where it can do nothing for now, besides what redis-py has a class for."""


class RedisLink(Link):
    """Two connections: one hears, one asks. They are redis-py's bare ones: its clients reconnect on their own, and then
    nobody would know that something was missed.
    """

    def __init__(self, pool: Any, errors: Any, settings: Settings, node: str) -> None:
        self.keeps_history = settings.history > 0
        self._hearing = pool.make_connection()
        self._asking = pool.make_connection()
        self._errors = errors
        self._turn = asyncio.Lock()
        self._script = b""
        self._node = node
        # Pub/sub knows no databases. So that two of them stay apart, the number is in the name of all that is there.
        prefix = f"{NAME}:{pool.connection_kwargs.get('db', 0)}:"
        self._channel_prefix = f"{prefix}channel:".encode()
        self._given = (prefix, settings.history, max(1, round(settings.history_seconds)))
        self._seconds = settings.presence_seconds
        self._listened: dict[bytes, asyncio.Future[None]] = {}
        self._heard_pong = asyncio.Event()

    @classmethod
    async def connect(cls, settings: Settings, node: str) -> Self:
        redis: Any = import_module("redis.asyncio")
        errors: Any = import_module("redis.exceptions")
        once = import_module("redis.asyncio.retry").Retry(import_module("redis.backoff").NoBackoff(), 0)
        url = settings.fanout_url.replace("valkey", "redis", 1)
        pool = redis.ConnectionPool.from_url(url, protocol=2, retry=once, socket_timeout=None)
        link = cls(pool, errors, settings, node)
        try:
            await link._hearing.connect()
            await link._asking.connect()
            link._script = _answered(await link._ask(("SCRIPT", "LOAD", SCRIPT)))
        except BaseException as error:
            await link.close()
            if isinstance(error, errors.InvalidResponse):
                raise MistakenUrlError("what answers there is no Redis") from None
            if isinstance(error, errors.AuthenticationError | errors.NoPermissionError) or "DB index" in str(error):
                raise MistakenUrlError(f"Redis says: {error}") from None
            raise
        return link

    async def listen(self, channels: Collection[str]) -> None:
        names = [self._channel_prefix + channel.encode() for channel in channels]
        loop = asyncio.get_running_loop()
        self._listened = {name: loop.create_future() for name in names}
        await self._hearing.send_command("SUBSCRIBE", *names)
        await asyncio.gather(*self._listened.values())

    async def ignore(self, channels: Collection[str]) -> None:
        await self._hearing.send_command("UNSUBSCRIBE", *[self._channel_prefix + name.encode() for name in channels])

    async def events(self) -> AsyncIterator[tuple[str, Published]]:
        start = len(self._channel_prefix)
        while True:
            match await self._hearing.read_response():
                case [b"message", channel, data]:
                    sequence, skipped, message = data.split(b" ", 2)
                    yield channel[start:].decode(), Published(message, int(sequence), _skipped(skipped))
                case [b"subscribe", channel, _]:
                    if (listened := self._listened.pop(channel, None)) and not listened.done():
                        listened.set_result(None)
                case [b"pong", _] | b"PONG":
                    self._heard_pong.set()
                case _:
                    pass

    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        results = await self._ask(*[self._call(*self._arguments(operation)) for operation in operations])
        return [_read(operation, result) for operation, result in zip(operations, results, strict=True)]

    def _arguments(self, operation: Operation[Any]) -> tuple[str | bytes | int, ...]:
        match operation:
            case Publish(channel=channel, data=data, skipped=skipped, id=name, again=again):
                return "publish", channel, data, skipped or "-", name, int(again)
            case Since(channel=channel, after=after):
                return "since", channel, "" if after is None else after
            case Arrive(channel=channel, member=member, joined=joined, left=left):
                return "arrive", self._node, channel, member, joined, left
            case Depart(channel=channel, member=member):
                return "depart", self._node, channel, member
            case Members(channel=channel):
                return "members", channel
            case _:
                raise TypeError(operation)

    async def pulse(self) -> Pulse:
        self._heard_pong.clear()
        await self._hearing.send_command("PING")
        lifetime, known = _answered(await self._ask(self._call("pulse", self._node, self._seconds)))
        await self._heard_pong.wait()
        return Pulse(lifetime.decode(), bool(known))

    async def entries(self) -> set[tuple[str, str]]:
        return {_entry(entry) for entry in _answered(await self._ask(self._call("entries", self._node)))}

    async def close(self) -> None:
        await self._hearing.disconnect(nowait=True)
        await self._asking.disconnect(nowait=True)

    def _call(self, *arguments: str | bytes | float) -> tuple[Any, ...]:
        return ("EVALSHA", self._script, 0, *self._given, *arguments)

    async def _ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands at once; return what each is answered, or the exception that it is the fault of."""
        async with self._turn:
            await self._asking.send_packed_command(self._asking.pack_commands(commands))
            answers: list[Any] = []
            for _ in commands:
                try:
                    answers.append(await self._asking.read_response())
                except self._errors.ResponseError as error:
                    if type(error) is not self._errors.ResponseError or any(word in str(error) for word in AILING):
                        raise
                    answers.append(error)
            return answers


def _read(operation: Operation[Any], answer: Any) -> Any:
    match operation:
        case _ if isinstance(answer, Exception):
            return answer
        case Publish():
            return int(answer)
        case Since():
            began, sequence, kept = answer
            return History(int(began), int(sequence), [_message(*each) for each in kept])
        case Members():
            return [member.decode() for member in answer]
        case _:
            return None


def _message(number: bytes, fields: list[bytes]) -> Published:
    return Published(fields[5], int(number.partition(b"-")[0]), _skipped(fields[3]))


def _skipped(name: bytes) -> str:
    return "" if name == b"-" else name.decode()


def _entry(entry: bytes) -> tuple[str, str]:
    length, _, rest = entry.partition(b":")
    return rest[: int(length)].decode(), rest[int(length) :].decode()


def _answered(answers: list[Any]) -> Any:
    """Return the one answer there is, or raise it."""
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer
