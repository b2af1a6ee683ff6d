"""The messages on the path of a listener: a channel of AsyncAPI, with an operation for each direction."""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar.routes import WebSocketRoute
from litestar.typing import FieldDefinition
from litestar_asyncapi import ChannelDefinition, MessageDefinition, OperationDefinition
from litestar_asyncapi.spec import CorrelationId, OperationAction, Parameter, Reference, Reply
from litestar_asyncapi.spec.bindings import WebSocketChannelBinding
from polyfactory.exceptions import FactoryException
from polyfactory.factories.msgspec_factory import MsgspecFactory
from polyfactory.field_meta import FieldMeta

from ..handlers.listener import ListenerRouteHandler, description_of, given_type, json_schemas
from ..handlers.messages import End, Ping, Pong
from ..internals import fields_of, frames_of, function_of, query_of

CONTENT_TYPES: dict[Any, str] = {str: "text/plain", bytes: "application/octet-stream"}
"""The content types of the messages that are not JSON."""

CORRELATION = CorrelationId(
    location="$message.payload#/ref",
    description="A client may give a message a `ref`; each answer to the message has the same `ref`.",
)
"""The field by which an answer refers to its message."""

NO_EXAMPLE: Final = (FactoryException, TypeError, ValueError, RecursionError)
"""The errors that polyfactory raises for a type without an example."""


def describe(
    route: WebSocketRoute,
    handler: ListenerRouteHandler,
    security: Iterable[str],
    renewal: type[msgspec.Struct] | None = None,
) -> ChannelDefinition:
    """Describe a path.

    Args:
        route: The path.
        handler: Its listener.
        security: The names of the ways to authenticate. A handler that is not public accepts any of them.
        renewal: The message that renews the authentication of an open connection, if any. It is answered with `end`.
    """
    fields = fields_of(handler)
    wanted = () if handler.opt.get("public") else security
    renewals = [FieldDefinition.from_annotation(each) for each in (renewal, End) if renewal and wanted]
    received = [*handler.received_types(), *renewals[:1]]
    sent = [*handler.sent_types(), *(each for each in renewals[1:] if not handler.streams)]
    messages = _messages(handler, received, sent)
    key = route.path_format
    answers = [
        Reference(f"{_channel(key)}/messages/{message.name}")
        for message in messages
        if message.payload in handler.reply_types()
    ]
    reply = Reply(channel=Reference(_channel(key)), messages=answers)
    directions = [
        (OperationAction.RECEIVE, "Messages the service receives", function_of(handler), received),
        (OperationAction.SEND, "Messages the service sends", handler.source, sent),
    ]
    return ChannelDefinition(
        key=key,
        address=key,
        parameters={
            name: Parameter(
                description=description_of(fields.get(name)) or f"Part of the path, of type {each.type.__name__}."
            )
            for name, each in route.path_parameters.items()
        },
        bindings={"ws": WebSocketChannelBinding(method="GET", query=_query(route), binding_version="0.1.0")},
        operations=[
            OperationDefinition(
                action=action,
                operation_id=f"{handler.source.__name__}_{action.value}",
                title=title,
                summary=docstring(documented)[0],
                messages=[message for message in messages if message.payload in members],
                reply=reply if action is OperationAction.RECEIVE else None,
                security=[Reference(f"#/components/securitySchemes/{each}") for each in wanted] or None,
            )
            for action, title, documented, members in directions
        ],
    )


def _channel(key: str) -> str:
    """Return the reference to a channel: a JSON pointer (RFC 6901) in a fragment."""
    return f"#/channels/{quote(key.replace('~', '~0').replace('/', '~1'), safe='~')}"


def docstring(thing: Any) -> tuple[str | None, str | None]:
    """Return the first paragraph of a docstring, and the rest."""
    summary, _, description = inspect.cleandoc(thing.__doc__ or "").partition("\n\n")
    return " ".join(summary.split()) or None, description or None


def _messages(
    handler: ListenerRouteHandler, received: list[FieldDefinition], sent: list[FieldDefinition]
) -> list[MessageDefinition]:
    """Describe the messages of both directions, each once and under a unique name."""
    received_in, sent_in = frames_of(handler)
    messages: dict[str, MessageDefinition] = {}
    for members, frames in ((received, received_in), (sent, sent_in)):
        for member in members:
            if all(member != message.payload for message in messages.values()):
                name = getattr(member.annotation, "__name__", "Message")
                while name in messages:  # types of the same name, of different modules
                    name += "_"
                messages[name] = _message(name, member, handler, frames)
    return list(messages.values())


def _message(name: str, member: FieldDefinition, handler: ListenerRouteHandler, frames: str) -> MessageDefinition:
    kind = member.annotation
    summary, description = docstring(kind) if hasattr(kind, "__struct_fields__") else (None, None)
    is_correlated = handler.codec.is_json and member.annotation not in {str, bytes, Ping, Pong}
    example = example_of(member.raw, handler.default_serializer)
    return MessageDefinition(
        payload=member,
        name=name,
        title=re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).capitalize(),
        summary=summary,
        description=description,
        examples=None if example is msgspec.UNSET else [example],
        correlation_id=CORRELATION if is_correlated else None,
        content_type=CONTENT_TYPES.get(kind),
        extensions={"x-websocket-mode": "binary" if kind is bytes else frames},
    )


def _query(route: WebSocketRoute) -> dict[str, Any] | None:
    """Return the JSON schema of the query parameters that the listener, its hooks or its dependencies take."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, field, is_required in query_of(route):
        (schema,), components = json_schemas([given_type(field)])
        properties[name] = components.get(schema.get("$ref", ""), schema)
        if description := description_of(field):
            properties[name]["description"] = description
        if is_required:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required} if properties else None


class Examples(MsgspecFactory[msgspec.Struct]):
    """Makes examples of any type. The example of a plain text is the name of its field, of a plain number 1."""

    __is_base_factory__ = True
    __random_seed__ = 1
    __use_defaults__ = True
    __use_examples__ = True

    @classmethod
    def get_field_value(cls, field_meta: FieldMeta, *args: Any, **kwargs: Any) -> Any:
        plain: dict[Any, Any] = {str: field_meta.name or "text", int: 1}
        if field_meta.annotation in plain and not field_meta.constraints and not field_meta.examples:
            return plain[field_meta.annotation]
        return super().get_field_value(field_meta, *args, **kwargs)


def example_of(kind: Any, encode: Callable[[Any], Any]) -> Any:
    """Make an example of a message.

    A field defines its own example with `Annotated[str, Meta(examples=["hi"])]`.

    Args:
        kind: The type of the message.
        encode: Called with each object that msgspec cannot encode, as `enc_hook`.

    Returns:
        The example as decoded JSON, or `msgspec.UNSET` if none can be made.
    """
    holder = msgspec.defstruct("Holder", [("text", kind)])
    try:
        example = Examples.create_factory(holder).build()
        return msgspec.json.decode(msgspec.json.encode(example, enc_hook=encode))["text"]
    except NO_EXAMPLE:
        return msgspec.UNSET
