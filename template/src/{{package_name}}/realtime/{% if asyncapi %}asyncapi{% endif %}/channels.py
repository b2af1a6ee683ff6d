"""The messages on the path of a listener: a channel of AsyncAPI, with an operation for each direction."""

import inspect
import re
from collections.abc import Iterable
from types import NoneType
from typing import Any
from urllib.parse import quote

import msgspec
from litestar.routes import WebSocketRoute
from litestar.typing import FieldDefinition
from litestar_asyncapi import ChannelDefinition, MessageDefinition, OperationDefinition
from litestar_asyncapi.spec import CorrelationId, OperationAction, Parameter, Reference, Reply
from litestar_asyncapi.spec.bindings import WebSocketChannelBinding

from ..handlers.messages import End, Ping, Pong
from ..handlers.route_handler import ListenerRouteHandler
from ..internals import fields_of, frames_of, function_of, query_of

CONTENT_TYPES: dict[Any, str] = {str: "text/plain", bytes: "application/octet-stream"}
"""The content types of the messages that are not JSON."""

CORRELATION = CorrelationId(
    location="$message.payload#/ref",
    description="A client may give a message a `ref`; each answer to it carries the same.",
)
"""Where answers say which message they answer."""


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
        security: The names of the ways to authenticate, of which a handler that is not public accepts any.
        renewal: The message that authenticates anew on an open connection, if there is one. An `end` answers it.
    """
    function = function_of(handler)
    listener: Any = type(function.__self__) if inspect.ismethod(function) else function
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
        (OperationAction.RECEIVE, "Messages the service receives", function, received),
        (OperationAction.SEND, "Messages the service sends", listener, sent),
    ]
    return ChannelDefinition(
        key=key,
        address=key,
        parameters={
            name: Parameter(
                description=_description(fields.get(name)) or f"Part of the path, of type {each.type.__name__}."
            )
            for name, each in route.path_parameters.items()
        },
        bindings={"ws": WebSocketChannelBinding(method="GET", query=_query(route), binding_version="0.1.0")},
        operations=[
            OperationDefinition(
                action=action,
                operation_id=f"{listener.__name__}_{action.value}",
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
    """Return what refers to a channel: a JSON pointer (RFC 6901) in a fragment."""
    return f"#/channels/{quote(key.replace('~', '~0').replace('/', '~1'), safe='~')}"


def docstring(thing: Any) -> tuple[str | None, str | None]:
    """Return the first paragraph of a docstring, and the rest."""
    summary, _, description = inspect.cleandoc(thing.__doc__ or "").partition("\n\n")
    return " ".join(summary.split()) or None, description or None


def _messages(
    handler: ListenerRouteHandler, received: list[FieldDefinition], sent: list[FieldDefinition]
) -> list[MessageDefinition]:
    """Describe the messages of both directions, each once, under a name of its own."""
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
    from .examples import example_of  # polyfactory is slow to import, and the start does not wait for it

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
        kinds = [inner.raw for inner in field.inner_types if inner.annotation is not NoneType]
        kind = kinds[0] if field.is_optional and len(kinds) == 1 else field.raw
        (schema,), components = msgspec.json.schema_components([kind], ref_template="{name}")
        properties[name] = components.get(schema.get("$ref", ""), schema)
        if description := _description(field):
            properties[name]["description"] = description
        if is_required:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required} if properties else None


def _description(field: FieldDefinition | None) -> str | None:
    """Return the description of a parameter, as in `Annotated[str, PathParameter(description="The room.")]`."""
    return getattr(field and field.kwarg_definition, "description", None)
