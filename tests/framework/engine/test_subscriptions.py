"""Where a node stands in a channel, while its connections and those of its clients come and go."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from my_service.realtime.fanout.broker import FanoutUnavailableError
from my_service.realtime.fanout.engine.backend import Event, ReadHistory
from my_service.realtime.fanout.engine.signatures import Signer
from my_service.realtime.fanout.engine.subscriptions import Subscriptions
from my_service.realtime.fanout.messages import History, Message

TIMEOUT = 20


class Engine:
    """Has the messages of one channel, which begin after 100, and cannot read some others."""

    def __init__(self) -> None:
        self.began = self.last = 100
        self.reads: list[int | None] = []
        self.subscribed: set[str] = set()
        self.broken: set[str] = set()

    async def subscribe(self, channels: Collection[str]) -> None:
        self.subscribed.update(channels)

    async def unsubscribe(self, channels: Collection[str]) -> None:
        self.subscribed.difference_update(channels)

    async def apply(self, reads: Sequence[ReadHistory]) -> list[History | Exception]:
        return [ValueError() if each.channel in self.broken else self._read(each.after) for each in reads]

    def _read(self, after: int | None) -> History:
        self.reads.append(after)
        kept = range(self.last + 1 if after is None else after + 1, self.last + 1)
        return History(self.began, self.last, [Message(b"%d" % number, number) for number in kept])


def receive(subscriptions: Subscriptions, engine: Engine) -> None:
    engine.last += 1
    first = engine.last == engine.began + 1
    subscriptions.receive(Event("hall", Message(b"%d" % engine.last, engine.last), first))


@pytest.mark.parametrize("anew", ["", "before", "after"], ids=["stays", "left before", "left after"])
def test_who_joins_anew_while_the_connection_is_lost_is_not_sent_what_came_before(anew: str) -> None:
    async def lose() -> None:
        sent: list[bytes] = []
        subscriptions = Subscriptions(lambda _, message: sent.append(message.data), Signer([]))
        engine: Any = Engine()
        subscriptions.add("hall")
        await subscriptions.sync(engine)
        receive(subscriptions, engine)
        if anew == "before":
            subscriptions.discard("hall")
        subscriptions.connection_lost()
        if anew == "after":
            subscriptions.discard("hall")
        subscriptions.add("hall")
        engine.last += 1
        await subscriptions.sync(engine)
        receive(subscriptions, engine)
        assert sent == ([b"101", b"103"] if anew else [b"101", b"102", b"103"])

    asyncio.run(asyncio.wait_for(lose(), TIMEOUT))


def test_who_leaves_and_joins_again_at_once_costs_the_engine_nothing_and_who_left_is_unsubscribed() -> None:
    async def leave() -> None:
        sent: list[bytes] = []
        subscriptions = Subscriptions(lambda _, message: sent.append(message.data), Signer([]))
        engine: Any = Engine()
        subscriptions.add("hall")
        await subscriptions.sync(engine)
        subscriptions.discard("hall")
        subscriptions.add("hall")
        await subscriptions.wait_synced("hall")
        await subscriptions.sync(engine)
        receive(subscriptions, engine)
        assert (sent, engine.reads) == ([b"101"], [None])
        subscriptions.discard("hall")
        await subscriptions.wait_synced("hall")
        await subscriptions.sync(engine)
        assert not engine.subscribed

    asyncio.run(asyncio.wait_for(leave(), TIMEOUT))


def test_a_channel_that_was_silent_for_so_long_that_it_begins_anew_has_no_gap() -> None:
    async def begin_anew() -> None:
        sent: list[bytes] = []
        subscriptions = Subscriptions(lambda _, message: sent.append(message.data), Signer([]))
        engine: Any = Engine()
        subscriptions.add("hall")
        await subscriptions.sync(engine)
        receive(subscriptions, engine)
        engine.began = engine.last = 1000
        for _ in range(2):
            receive(subscriptions, engine)
        await subscriptions.sync(engine)
        assert sent == [b"101", b"1001", b"1002"]

    asyncio.run(asyncio.wait_for(begin_anew(), TIMEOUT))


def test_who_waits_for_a_channel_that_cannot_be_read_is_told_and_may_try_again() -> None:
    async def wait() -> None:
        subscriptions = Subscriptions(lambda _channel, _message: None, Signer([]))
        engine: Any = Engine()
        engine.broken = {"bad"}
        syncing = asyncio.create_task(subscriptions.sync_loop(engine))
        for channel in ("hall", "bad"):
            subscriptions.add(channel)
        await subscriptions.wait_synced("hall")
        for _ in range(2):
            with pytest.raises(FanoutUnavailableError):
                await subscriptions.wait_synced("bad")
        engine.broken.clear()
        await subscriptions.wait_synced("bad")
        syncing.cancel()

    asyncio.run(asyncio.wait_for(wait(), TIMEOUT))


def test_what_came_while_a_channel_could_not_be_read_is_not_sent_to_who_joins_later() -> None:
    async def join_later() -> None:
        sent: list[bytes] = []
        subscriptions = Subscriptions(lambda _, message: sent.append(message.data), Signer([]))
        engine: Any = Engine()
        engine.broken = {"hall"}
        subscriptions.add("hall")
        await subscriptions.sync(engine)
        subscriptions.discard("hall")
        receive(subscriptions, engine)
        engine.broken.clear()
        subscriptions.add("hall")
        await subscriptions.sync(engine)
        receive(subscriptions, engine)
        assert sent == [b"102"]

    asyncio.run(asyncio.wait_for(join_later(), TIMEOUT))
