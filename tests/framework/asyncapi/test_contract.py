"""A real exchange against the document: each message on the wire is of an operation, and each reply of its question."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import MessageError, listener
from my_service.realtime.asyncapi.plugin import Documentation

from ..recording import Hooks, build
from .test_channels import resolve


class Ask(Struct, tag="ask", forbid_unknown_fields=True):
    length: int
    wait: bool = False


class Save(Struct, tag="save", rename="camel"):
    full_name: str


class Token(Struct, tag="token", forbid_unknown_fields=True):
    text: str


class Saved(Struct, tag="saved", omit_defaults=True):
    name: str = ""


@listener("/ask")
async def ask(data: Ask) -> AsyncGenerator[Token, None]:
    if data.length < 0:
        raise MessageError("negative", extra={"field": "length"})
    for number in range(data.length):
        yield Token(str(number))
    while data.wait:
        yield Token("more")


@listener("/save")
async def save(data: Save) -> Saved:
    if not data.full_name:
        raise MessageError("empty")
    return Saved(data.full_name)


Said = list[tuple[str, dict[str, Any]]]
"""What was said: who received it, as an operation's action has it, and the message."""


def talk(socket: Any, said: Said, message: dict[str, Any], last: str) -> None:
    """Say something, and receive up to a message of this type; cancel a stream that does not end."""
    socket.send_json(message)
    said.append(("receive", message))
    while True:
        answer = socket.receive_json(timeout=20)
        said.append(("send", answer))
        if answer["type"] == last:
            return
        if answer.get("text") == "more" and not any(each["type"] == "cancel" for _, each in said):
            cancel = {"type": "cancel", "ref": message["ref"]}
            socket.send_json(cancel)
            said.append(("receive", cancel))


CONVERSATIONS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "/ask": [
        ({"type": "ask", "length": 3, "ref": "a"}, "end"),
        ({"type": "ask", "length": 1, "wait": True, "ref": 1}, "end"),
        ({"type": "ask", "length": -1, "ref": 2}, "error"),
        ({"type": "ping", "ref": 3}, "pong"),
        ({"type": "ask", "length": -1}, "error"),
    ],
    "/save": [
        ({"type": "save", "fullName": "ada", "ref": "b"}, "saved"),
        ({"type": "save", "fullName": "ada"}, "saved"),
        ({"type": "save", "fullName": "", "ref": 0}, "error"),
        ({"type": "ping"}, "pong"),
    ],
}


@pytest.mark.parametrize("path", CONVERSATIONS)
def test_what_is_said_is_what_is_documented(path: str) -> None:
    app = build(Hooks(), ask, save)
    document = Documentation("service", "1").get_asyncapi_schema(app)
    said: Said = []
    with TestClient(app) as client, client.websocket_connect(path) as socket:
        for message, last in CONVERSATIONS[path]:
            talk(socket, said, message, last)
    asked = {message["ref"]: message for action, message in said if action == "receive" and "ref" in message}
    for action, message in said:
        operation = operation_of(document, path, action)
        assert is_one_of(document, operation["messages"], message), (action, message)
        if action == "send" and message["type"] != "pong" and "ref" in message:
            assert message["ref"] in asked
            reply = operation_of(document, path, "receive")["reply"]["messages"]
            assert is_one_of(document, reply, message), message
    assert {message["type"] for _, message in said} >= {last for _, last in CONVERSATIONS[path]}


def operation_of(document: dict[str, Any], path: str, action: str) -> dict[str, Any]:
    [operation] = [
        each
        for each in document["operations"].values()
        if each["action"] == action and resolve(document, each["channel"]["$ref"])["address"] == path
    ]
    return dict(operation)


def is_one_of(document: dict[str, Any], references: list[dict[str, str]], message: dict[str, Any]) -> bool:
    """Whether a message is valid by the schema of exactly one of those, and has its `ref` where that says."""
    return len([*valid(document, references, message)]) == 1


def valid(document: dict[str, Any], references: list[dict[str, str]], message: dict[str, Any]) -> Iterator[str]:
    for reference in references:
        documented = resolve(document, reference["$ref"])
        validator: Any = Draft7Validator(documented["payload"] | {"components": document["components"]})
        located = documented.get("correlationId", {}).get("location", "$message.payload#/ref")
        if validator.is_valid(message) and located == "$message.payload#/ref":
            yield documented["name"]
