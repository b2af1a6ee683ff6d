"""Who may connect stands in the document of the messages."""

from litestar import Litestar

from my_service.realtime import listener
from my_service.realtime.asyncapi.plugin import Documentation
from my_service.realtime.asyncapi.security import security_schemes
from my_service.realtime.auth.handshake import Authenticate
from my_service.settings import Settings


@listener("/members")
async def members(data: str) -> None: ...


@listener("/public", opt={"public": True})
async def public(data: str) -> None: ...


def test_every_path_wants_a_token_unless_it_is_public() -> None:
    documentation = Documentation("service", "1", security_schemes(Settings.load()))
    app = Litestar([members, public], plugins=[documentation])
    document = app.plugins.get(Documentation).get_asyncapi_schema(app)
    wanted = {name: operation.get("security", []) for name, operation in document["operations"].items()}
    ways = [{"$ref": f"#/components/securitySchemes/{name}"} for name in ("header", "subprotocol", "cookie")]
    assert wanted == {"members_receive": ways, "members_send": ways, "public_receive": [], "public_send": []}
    schemes = document["components"]["securitySchemes"]
    assert [(each["type"], each.get("name")) for each in schemes.values()] == [
        ("http", None),
        ("httpApiKey", "Sec-WebSocket-Protocol"),
        ("httpApiKey", "token"),
    ]
    assert "401 without a valid token" in document["info"]["description"]


def test_the_service_documents_it(app: Litestar) -> None:
    document = app.plugins.get(Documentation).get_asyncapi_schema(app)
    assert document["components"]["securitySchemes"].keys() == {"header", "subprotocol", "cookie"}
    assert {"Say", "Authenticate", "End"} < document["channels"]["/ws/echo"]["messages"].keys()


def test_a_renewal_is_a_message_of_every_path_but_the_public_ones() -> None:
    documentation = Documentation("service", "1", security_schemes(Settings.load()), Authenticate)
    app = Litestar([members, public], plugins=[documentation])
    document = app.plugins.get(Documentation).get_asyncapi_schema(app)
    names = {path: {*channel["messages"]} for path, channel in document["channels"].items()}
    assert names == {"/members": {"str", "Authenticate", "ErrorMessage", "End"}, "/public": {"str", "ErrorMessage"}}
    [received, sent] = [document["operations"][f"members_{each}"]["messages"] for each in ("receive", "send")]
    assert {each["$ref"].rpartition("/")[2] for each in received} == {"str", "Authenticate"}
    assert {each["$ref"].rpartition("/")[2] for each in sent} == {"ErrorMessage", "End"}
