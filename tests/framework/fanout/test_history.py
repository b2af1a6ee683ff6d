"""A sequence with a hole is filled, or told as a gap: by one rule, whoever receives it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from my_service.realtime.fanout.memory import MemoryBroker
from my_service.realtime.fanout.messages import GapMarker, History, Message, resume
from my_service.realtime.sessions.fast_path import encode_with
from my_service.settings import Settings

BEGAN = 100
MIB = 1024**2


def message(sequence: int, data: bytes = b"{}") -> Message:
    return Message(data, sequence)


def shown(messages: Sequence[Message]) -> list[object]:
    """Show messages as their sequences, and gaps as how many are missed."""
    return [
        {"missed": msgspec.json.decode(each.data)["missed"]} if isinstance(each, GapMarker) else each.sequence
        for each in messages
    ]


@pytest.mark.parametrize(
    ("after", "last", "kept", "received", "expected"),
    [
        (103, 105, [104, 105], [], [104, 105]),
        (105, 105, [], [], []),
        (103, 105, [104, 105], [105, 106], [104, 105, 106]),
        (0, 105, [104, 105], [106], [104, 105, 106]),
        (101, 105, [104, 105], [], [{"missed": 2}, 104, 105]),
        (103, 105, [], [], [{"missed": 2}]),
        (103, 105, [], [105], [{"missed": 1}, 105]),
        (103, 105, [104, 105], [107], [104, 105, {"missed": 1}, 107]),
        (7, 105, [104, 105], [], [{"missed": None}, 104, 105]),
        (900, 105, [], [106], [{"missed": None}, 106]),
    ],
)
def test_what_follows_is_received_once_and_in_order_and_each_hole_is_a_gap(
    after: int, last: int, kept: list[int], received: list[int], expected: list[object]
) -> None:
    history = History(BEGAN, last, [message(sequence) for sequence in kept])
    assert shown([*resume("hall", after, history, [message(sequence) for sequence in received])]) == expected


@pytest.mark.parametrize("last", [104, 105])
def test_a_message_that_is_known_to_be_lost_is_a_gap(last: int) -> None:
    history = History(BEGAN, last, [message(104)])
    assert shown([*resume("hall", 103, history, [message(105, b""), message(106)])]) == [104, {"missed": 1}, 106]


@pytest.mark.parametrize(
    ("until", "expected"), [(104, [104, 105, 106]), (105, [104, 105, 106]), (107, [104, 105, {"missed": 2}, 108])]
)
def test_of_a_gap_that_came_meanwhile_only_what_the_history_lacks_is_told(until: int, expected: list[Any]) -> None:
    history = History(BEGAN, 105, [message(104), message(105)])
    received = [GapMarker("hall", 4, until), *[message(sequence) for sequence in range(until + 1, expected[-1] + 1)]]
    assert shown([*resume("hall", 103, history, received)]) == expected


def test_after_a_gap_of_unknown_size_a_channel_may_begin_anew() -> None:
    history = History(BEGAN, 105, [message(105)])
    assert shown([*resume("hall", 104, history, [GapMarker("hall"), message(106)])]) == [105, {"missed": None}, 106]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"size":18446744073709551616,"price":1e2}', b'{"size":18446744073709551616,"price":1e2,"sequence":7}'),
        (b"{}", b'{"sequence":7}'),
        (b'{"sequence":1}', b'{"sequence":7}'),
        (b'["said","hi"]', b'["said","hi"]'),
    ],
)
def test_the_sequence_is_a_field_of_whatever_is_an_object(data: bytes, expected: bytes) -> None:
    assert encode_with(msgspec.Raw(data), "sequence", 7) == expected


def test_history_is_bounded_in_bytes_for_each_channel_and_all_and_the_oldest_room_goes_first() -> None:
    async def fill() -> None:
        broker = MemoryBroker(Settings(history_bytes=MIB))
        await broker.start(lambda _channel, _message: None)
        for room in range(40):
            for _ in range(9):
                await broker.publish(f"room {room}", b"x" * 10_000)
        kept = [(await broker.read_history(f"room {room}", 0)).messages for room in range(40)]
        assert 0.8 * MIB < sum(len(each.data) for messages in kept for each in messages) <= MIB
        assert [bool(messages) for messages in kept] == sorted(bool(messages) for messages in kept)
        assert len(kept[-1]) == 9
        for _ in range(100):
            await broker.publish("loud", b"x" * 10_000)
        loud = await broker.read_history("loud", 0)
        assert MIB / 16 < sum(len(each.data) for each in loud.messages) <= MIB / 8
        await broker.publish("loud", b"x" * MIB)
        assert not (await broker.read_history("loud", 0)).messages, "it is larger than what one channel may keep"

    asyncio.run(fill())


def test_a_message_is_kept_once_whatever_was_made_of_it() -> None:
    async def publish() -> None:
        broker = MemoryBroker(Settings())
        sent: list[Message] = []
        await broker.start(lambda _channel, message: sent.append(message))
        await broker.publish("hall", b'{"type":"said"}')
        sent[0].frame(numbered=True)
        [kept] = (await broker.read_history("hall", 0)).messages
        assert kept.data is sent[0].data
        assert kept is not sent[0]

    asyncio.run(publish())
