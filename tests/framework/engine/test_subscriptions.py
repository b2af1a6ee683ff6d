"""Where a node stands in a channel, while its connections and those of its clients come and go."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
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


class Node:
    """Stands in the channel "hall" of an engine."""

    def __init__(self) -> None:
        self.engine: Any = Engine()
        self.sent: list[bytes] = []
        """To its clients."""
        self.subscriptions = Subscriptions(lambda _, message: self.sent.append(message.data), Signer([]))
        self.subscriptions.add("hall")

    async def sync(self) -> None:
        await self.subscriptions.sync(self.engine)

    def receive(self) -> None:
        """Receive the next message of the channel from the engine."""
        self.engine.last += 1
        first = self.engine.last == self.engine.began + 1
        self.subscriptions.receive(Event("hall", Message(b"%d" % self.engine.last, self.engine.last), first))


def run(story: Callable[[Node], Awaitable[None]]) -> None:
    async def told() -> None:
        await asyncio.wait_for(story(Node()), TIMEOUT)

    asyncio.run(told())


@pytest.mark.parametrize("anew", ["", "before", "after"], ids=["stays", "left before", "left after"])
def test_who_joins_anew_while_the_connection_is_lost_is_not_sent_what_came_before(anew: str) -> None:
    async def lose(node: Node) -> None:
        await node.sync()
        node.receive()
        if anew == "before":
            node.subscriptions.discard("hall")
        node.subscriptions.connection_lost()
        if anew == "after":
            node.subscriptions.discard("hall")
        node.subscriptions.add("hall")
        node.engine.last += 1
        await node.sync()
        node.receive()
        assert node.sent == ([b"101", b"103"] if anew else [b"101", b"102", b"103"])

    run(lose)


def test_who_leaves_and_joins_again_at_once_costs_the_engine_nothing_and_who_left_is_unsubscribed() -> None:
    async def leave(node: Node) -> None:
        await node.sync()
        node.subscriptions.discard("hall")
        node.subscriptions.add("hall")
        await node.subscriptions.wait_synced("hall")
        await node.sync()
        node.receive()
        assert (node.sent, node.engine.reads) == ([b"101"], [None])
        node.subscriptions.discard("hall")
        await node.subscriptions.wait_synced("hall")
        await node.sync()
        assert not node.engine.subscribed

    run(leave)


def test_a_channel_that_was_silent_for_so_long_that_it_begins_anew_has_no_gap() -> None:
    async def begin_anew(node: Node) -> None:
        await node.sync()
        node.receive()
        node.engine.began = node.engine.last = 1000
        for _ in range(2):
            node.receive()
        await node.sync()
        assert node.sent == [b"101", b"1001", b"1002"]

    run(begin_anew)


def test_who_waits_for_a_channel_that_cannot_be_read_is_told_and_may_try_again() -> None:
    async def wait(node: Node) -> None:
        node.engine.broken = {"bad"}
        syncing = asyncio.create_task(node.subscriptions.sync_loop(node.engine))
        node.subscriptions.add("bad")
        await node.subscriptions.wait_synced("hall")
        for _ in range(2):
            with pytest.raises(FanoutUnavailableError):
                await node.subscriptions.wait_synced("bad")
        node.engine.broken.clear()
        await node.subscriptions.wait_synced("bad")
        syncing.cancel()

    run(wait)


def test_what_came_while_a_channel_could_not_be_read_is_not_sent_to_who_joins_later() -> None:
    async def join_later(node: Node) -> None:
        node.engine.broken = {"hall"}
        await node.sync()
        node.subscriptions.discard("hall")
        node.receive()
        node.engine.broken.clear()
        node.subscriptions.add("hall")
        await node.sync()
        node.receive()
        assert node.sent == [b"102"]

    run(join_later)
