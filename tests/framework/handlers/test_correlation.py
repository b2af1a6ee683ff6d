"""Answers carry the `ref` of their message; one that is refused is answered, and the connection stays open."""

from dataclasses import dataclass
from typing import Any

import pytest
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException, WebSocketDisconnect
from msgspec import UNSET, Struct, UnsetType, json

from my_service.realtime import ConfigurationError, MessageError, listener
from my_service.realtime.sessions.fast_path import encode_with

from ..recording import Hooks, Serve


class Rename(Struct, tag="rename", forbid_unknown_fields=True):
    name: str


class Renamed(Struct, tag="renamed"):
    name: str


class Where(Struct):
    field: str


REFUSALS: dict[str, Exception] = {
    "plain": MessageError("name_taken"),
    "detail": MessageError("name_taken", "somebody has it"),
    "extra": MessageError("name_taken", "somebody has it", extra={"field": "name"}),
    "struct": MessageError("name_taken", extra=Where("name")),
    "denied": PermissionDeniedException("not you"),
    "missing": NotFoundException("nobody", extra={"name": "x"}),
    "teapot": HTTPException("short", status_code=418),
    "broken": HTTPException("it is us", status_code=500),
    "bug": ValueError("secret"),
    "group": ExceptionGroup("of a task group", [ExceptionGroup("", [MessageError("name_taken")])]),
    "mixed": ExceptionGroup("of a task group", [MessageError("name_taken"), ValueError("a bug")]),
}


@listener("/")
async def rename(data: Rename) -> Renamed | None:
    if data.name in REFUSALS:
        raise REFUSALS[data.name]
    return Renamed(data.name) if data.name else None


@pytest.mark.parametrize("ref", [0, 1, -1, 2**53, "a", "x" * 64, "\u00e9", '"ref"', "null"])
def test_an_answer_carries_the_ref_of_its_message(serve: Serve, ref: Any) -> None:
    with serve(rename) as client, client.websocket_connect("/") as socket:
        socket.send_json({"ref": ref, "type": "rename", "name": "ada"})
        assert socket.receive_json(timeout=20) == {"type": "renamed", "name": "ada", "ref": ref}
        socket.send_json({"type": "rename", "name": "ada"})
        assert socket.receive_json(timeout=20) == {"type": "renamed", "name": "ada"}


class Referring(Struct, tag="referring", rename={"other": "ref"}):
    other: str


class Exotic(Struct, tag=7, tag_field="kind", rename="camel", kw_only=True, frozen=True):
    """Everything that decides how a Struct is encoded, and what must not happen to it a second time."""

    first_name: str = ""
    ref_: int | UnsetType = UNSET
    inner: Renamed
    place: complex = 1j

    def __post_init__(self) -> None:
        assert not isinstance(self.inner, dict)

    def __init_subclass__(cls, **_: Any) -> None:
        raise AssertionError("it has no subclass")


class Sparse(Struct, omit_defaults=True):
    name: str = ""
    other: int = 1


class Row(Struct, array_like=True):
    name: str


@dataclass
class Plain:
    name: str


MESSAGES: list[Any] = [
    Renamed("ada"),
    Exotic(inner=Renamed("x")),
    Exotic(inner=Renamed("x"), ref_=1),
    Sparse("ada"),
    Sparse(),
    Where("x"),
    Referring("x"),
    Plain("ada"),
    {"ref": 1, "place": 1j},
    {},
]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_object_has_place_for_a_ref(message: Any) -> None:
    encode = json.Encoder(enc_hook=str).encode
    assert json.decode(encode_with(message, "ref", "a", encode)) == json.decode(encode(message)) | {"ref": "a"}


@pytest.mark.parametrize("message", [Row("ada"), [{}], "{", 1, None])
def test_no_other_json_has(message: Any) -> None:
    assert encode_with(message, "ref", "a") == json.encode(message)


@pytest.mark.parametrize("ref", ["", "x" * 65, None, True, 1.5, [], {}, ["a"], 2**70])
def test_a_wrong_ref_is_an_invalid_message(serve: Serve, ref: Any) -> None:
    with serve(rename) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "rename", "name": "ada", "ref": ref})
        answer = socket.receive_json(timeout=20)
        assert answer.keys() == {"type", "code", "detail"}
        assert answer["code"] == "invalid_message"


def test_an_invalid_message_is_answered_with_its_ref(serve: Serve) -> None:
    with serve(rename) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "rename", "ref": 7})
        answer = socket.receive_json(timeout=20)
        assert (answer["code"], answer["ref"]) == ("invalid_message", 7)
        socket.send_text('{"ref": 8, ')
        assert "ref" not in socket.receive_json(timeout=20)


def test_a_ping_is_answered_with_its_ref_and_a_cancel_for_nothing_is_ignored(serve: Serve) -> None:
    with serve(rename) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "cancel", "ref": 7})
        socket.send_json({"type": "ping", "ref": 7})
        assert socket.receive_json(timeout=20) == {"type": "pong", "ref": 7}


def test_a_ref_further_down_is_the_users_own(serve: Serve) -> None:
    @listener("/")
    async def echo(data: dict[str, Any]) -> dict[str, Any]:
        return data

    with serve(echo) as client, client.websocket_connect("/") as socket:
        for message in ({"inner": {"ref": ""}}, {"ref": 1, "inner": {"ref": ""}}):
            socket.send_json(message)
            assert socket.receive_json(timeout=20) == message


def test_only_objects_have_a_ref(serve: Serve) -> None:
    seen: list[Any] = []

    @listener("/")
    async def take(data: Any) -> list[Any]:
        seen.append(data)
        return [data]

    with serve(take) as client, client.websocket_connect("/") as socket:
        for message in (["ref"], "ref", {"ref": 1}):
            socket.send_json(message)
            assert socket.receive_json(timeout=20) == [seen[-1]]
    assert seen == [["ref"], "ref", {}]


def test_text_has_no_ref(serve: Serve) -> None:
    @listener("/")
    async def echo(data: str) -> str:
        return data

    with serve(echo) as client, client.websocket_connect("/") as socket:
        for text in ('{"ref": 1}', '{"ref": ""}', '{"type":"cancel","ref":1}', '{"type":"ping"}'):
            socket.send_text(text)
            assert socket.receive_text(timeout=20) == text


def test_binary_json_has_a_ref(serve: Serve) -> None:
    @listener("/", receive_mode="binary", send_mode="binary")
    async def echo(data: Rename) -> Renamed:
        return Renamed(data.name)

    with serve(echo) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "rename", "name": "ada", "ref": "a"}, mode="binary")
        assert socket.receive_json(mode="binary", timeout=20) == {"type": "renamed", "name": "ada", "ref": "a"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", {"code": "name_taken", "detail": ""}),
        ("detail", {"code": "name_taken", "detail": "somebody has it"}),
        ("extra", {"code": "name_taken", "detail": "somebody has it", "extra": {"field": "name"}}),
        ("struct", {"code": "name_taken", "detail": "", "extra": {"field": "name"}}),
        ("denied", {"code": "permission_denied", "detail": "not you"}),
        ("missing", {"code": "not_found", "detail": "nobody", "extra": {"name": "x"}}),
        ("teapot", {"code": "http", "detail": "short"}),
        ("group", {"code": "name_taken", "detail": ""}),
    ],
)
def test_a_refused_message_is_answered_and_the_connection_stays_open(
    serve: Serve, name: str, expected: dict[str, Any]
) -> None:
    with serve(rename) as client, client.websocket_connect("/") as socket:
        for ref in ({}, {"ref": "r"}):
            socket.send_json({"type": "rename", "name": name, **ref})
            assert socket.receive_json(timeout=20) == {"type": "error", **expected, **ref}
        socket.send_json({"type": "rename", "name": "ada"})
        assert socket.receive_json(timeout=20) == {"type": "renamed", "name": "ada"}


def test_a_listener_that_answers_nothing_refuses_too(serve: Serve) -> None:
    @listener("/")
    async def refuse(data: Rename) -> None:
        raise MessageError("no")

    with serve(refuse) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "rename", "name": "ada", "ref": 0})
        assert socket.receive_json(timeout=20) == {"type": "error", "code": "no", "detail": "", "ref": 0}


@pytest.mark.parametrize("name", ["bug", "broken", "mixed"])
def test_a_bug_still_closes_with_1011(serve: Serve, hooks: Hooks, name: str) -> None:
    with serve(rename) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "rename", "name": name, "ref": 1})
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json(timeout=20)
        assert ended.value.code == 1011
        _, cause = hooks.ended.get(timeout=20)
        assert cause.error is REFUSALS[name]


class Failure(Struct, tag="error"):
    text: str


class Stop(Struct, tag="cancel"):
    text: str


class Sequenced(Struct, tag="sequenced"):
    sequence: int


class Numbered(Struct, tag=1, tag_field="sequence"):
    pass


class TakesSequence(Struct, tag="takes"):
    sequence: int


@pytest.mark.parametrize(
    ("taken", "sent", "mistake"),
    [
        (Rename, Failure, "the tag 'error'"),
        (Stop, Renamed, "the tag 'cancel'"),
        (Rename, Sequenced, "a field 'sequence'"),
        (Rename, Referring, "a field 'ref'"),
        (Referring, Renamed, "a field 'ref'"),
        (Rename, Numbered, "a field 'sequence'"),
    ],
)
def test_reserved_tags_and_fields_are_refused_at_start(
    serve: Serve, taken: type[Struct], sent: type[Struct], mistake: str
) -> None:
    async def function(data: Any) -> Any: ...

    function.__annotations__ = {"data": taken, "return": sent}
    with pytest.raises(ConfigurationError, match=mistake), serve(listener("/")(function)):
        pass


def test_a_client_may_send_a_sequence(serve: Serve) -> None:
    @listener("/")
    async def handler(data: TakesSequence) -> None: ...

    with serve(handler):
        pass
