"""What a listener says about itself stands in the document; what clients receive and it does not say is found."""

import json
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import pytest
from litestar import Litestar
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.testing import TestClient
from msgspec import Meta, Struct, field

from my_service.realtime import ConfigurationError, ErrorMessage, Listener, Socket, listener
from my_service.realtime.asyncapi.plugin import Documentation
from my_service.realtime.handlers.listener import listener_routes
from my_service.realtime.testing.client import UndocumentedMessages

from ..recording import Hooks, build


class Add(Struct, tag="add"):
    """A client adds
    a number.

    Any number will do.
    """

    number: int


class Clear(Struct, tag="clear"):
    to: Annotated[int, Meta(ge=5, examples=[7])]


class Money:
    pass


class Price(Struct, tag="price"):
    money: Money | None = None
    amount: int | float = 1
    named: int = field(default=1, name="oneOf")


class Total(Struct, tag="total"):
    """What it makes."""

    total: int


class SomebodyLeft(Struct, tag="left"):
    """Somebody left."""


@listener("/sum", sends=SomebodyLeft)
async def add_up(data: Add | Clear) -> Total | None:
    """Add it up."""


class Shelves(Listener):
    """Shelves of numbers."""

    path = "/shelves/{shelf:int}"
    sends = Total | SomebodyLeft

    async def on_accept(
        self,
        socket: Socket,
        page: Annotated[int, QueryParameter(description="Which page.")],
        after: FromQuery[int | None] = None,
    ) -> None: ...

    async def on_receive(self, data: Add, shelf: FromPath[int]) -> None:
        """Put it there."""


@listener("/text")
async def text(data: str) -> bytes:
    return data.encode()


@listener("/hidden", opt={"include_in_schema": False})
async def hidden(data: str) -> None: ...


def document_of(*handlers: Any) -> dict[str, Any]:
    app = Litestar(list(handlers), plugins=[Documentation("service", "1")])
    return app.plugins.get(Documentation).get_asyncapi_schema(app)


def resolve(document: dict[str, Any], reference: str) -> Any:
    """Return what a reference of a document points to: a JSON pointer (RFC 6901) as a fragment."""
    found: Any = document
    for part in unquote(reference).removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def messages_at(document: dict[str, Any], path: str, action: Literal["receive", "send"]) -> dict[str, Any]:
    """Return the messages of one direction at a path, by name; `receive` is what the service receives."""
    found: dict[str, Any] = {}
    for operation in document["operations"].values():
        if operation["action"] == action and resolve(document, operation["channel"]["$ref"])["address"] == path:
            for reference in operation["messages"]:
                message = resolve(document, reference["$ref"])
                found[message["name"]] = message
    return found


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return document_of(add_up, Shelves, text, hidden)


def test_each_message_of_a_union_is_there_in_both_directions(document: dict[str, Any]) -> None:
    assert messages_at(document, "/sum", "receive").keys() == {"Add", "Clear", "Ping"}
    assert messages_at(document, "/sum", "send").keys() == {"Total", "SomebodyLeft", "ErrorMessage", "Pong"}
    assert messages_at(document, "/shelves/{shelf}", "send").keys() == {"Total", "SomebodyLeft", "ErrorMessage", "Pong"}


def test_names_and_descriptions_come_from_the_messages(document: dict[str, Any]) -> None:
    add = messages_at(document, "/sum", "receive")["Add"]
    assert (add["title"], add["summary"]) == ("Add", "A client adds a number.")
    assert add["description"] == "Any number will do."
    left = messages_at(document, "/sum", "send")["SomebodyLeft"]
    assert (left["title"], left["summary"]) == ("Somebody left", "Somebody left.")
    assert document["operations"]["Shelves_receive"]["summary"] == "Put it there."
    assert document["operations"]["Shelves_send"]["summary"] == "Shelves of numbers."


def test_examples_are_made_up_or_those_of_the_message(document: dict[str, Any]) -> None:
    examples = {name: each["examples"] for name, each in messages_at(document, "/sum", "receive").items()}
    assert examples == {
        "Add": [{"payload": {"type": "add", "number": 1}}],
        "Clear": [{"payload": {"type": "clear", "to": 7}}],
        "Ping": [{"payload": {"type": "ping"}}],
    }


def test_a_value_may_match_several_members_of_a_union() -> None:
    """As null does of `Money | None`: of a type that msgspec does not know, the schema admits everything."""

    @listener("/", type_decoders=[(lambda kind: kind is Money, lambda _, value: value)])
    async def handler(data: Price) -> None: ...

    plugin = Documentation("service", "1")
    app = Litestar([handler], plugins=[plugin])
    document = plugin.get_asyncapi_schema(app)
    payload = messages_at(document, "/", "receive")["Price"]["payload"]
    schema = resolve(document, payload["$ref"])
    assert {name: len(each.get("anyOf", "")) for name, each in schema["properties"].items()} == {
        "type": 0,
        "money": 2,
        "amount": 2,
        "oneOf": 0,
    }
    assert json.loads(plugin.get_asyncapi_json(app)) == document


def test_the_path_and_the_query_are_there(document: dict[str, Any]) -> None:
    channel = document["channels"]["/shelves/{shelf}"]
    assert channel["parameters"] == {"shelf": {"description": "Part of the path, of type int."}}
    assert channel["bindings"]["ws"]["query"] == {
        "type": "object",
        "properties": {"after": {"type": "integer"}, "page": {"type": "integer", "description": "Which page."}},
        "required": ["page"],
    }
    assert "query" not in document["channels"]["/sum"]["bindings"]["ws"]


def test_text_and_bytes_are_no_json(document: dict[str, Any]) -> None:
    kinds = {
        each["contentType"]: each["x-websocket-mode"]
        for each in document["channels"]["/text"]["messages"].values()
        if each["name"] != "ErrorMessage"
    }
    assert kinds == {"text/plain": "text", "application/octet-stream": "binary"}


def test_a_path_may_stay_out_of_the_document(document: dict[str, Any]) -> None:
    assert "/hidden" not in document["channels"]


def test_messages_of_the_same_name_have_names_of_their_own() -> None:
    def make(tag: str) -> type[Struct]:
        class Same(Struct, tag=tag):
            pass

        return Same

    @listener("/", sends=make("other"))
    async def handler(data: make("one")) -> None: ...  # type: ignore[valid-type]

    document = document_of(handler)
    assert document["channels"]["/"]["messages"].keys() == {"Same", "Same_", "ErrorMessage", "Ping", "Pong"}


def test_which_answers_belong_to_which_messages_is_known() -> None:
    app = Litestar([add_up, Shelves, text, hidden])
    found = {
        route.path_format: [
            [each.annotation for each in types]
            for types in (handler.taken_types(), handler.answer_types(), handler.reply_types())
        ]
        for route, handler in listener_routes(app)
    }
    assert found == {
        "/sum": [[Add, Clear], [Total], [Total, ErrorMessage]],
        "/shelves/{shelf}": [[Add], [], [ErrorMessage]],
        "/text": [[str], [bytes], [bytes, ErrorMessage]],
    }


def test_what_is_not_a_message_cannot_be_declared() -> None:
    with pytest.raises(ConfigurationError, match=r"has sends=Left, which is not a message"):

        @listener("/", sends="Left")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        async def handler(data: str) -> None: ...


class Quiet(Listener):
    path = "/"

    async def on_accept(self, socket: Socket) -> None:
        await socket.send_json({"type": "total", "total": 1})

    async def on_receive(self, data: str) -> None: ...


class Open(Quiet):
    sends = Total


@pytest.mark.parametrize(("handler", "complaints"), [(Quiet, 1), (Open, 0)])
def test_what_is_received_and_not_documented_is_found(handler: type[Listener], complaints: int) -> None:
    app = build(Hooks(), handler)
    undocumented = UndocumentedMessages(app)
    with TestClient(app) as client, client.websocket_connect("/") as socket:
        assert socket.receive_json(timeout=20) == {"type": "total", "total": 1}
    assert len(undocumented.found) == complaints
