"""The types of the messages that a listener declares: what it receives and what it sends."""

from types import NoneType

from litestar.typing import FieldDefinition

from .messages import ErrorMessage, Ping, Pong
from .route_handler import ListenerRouteHandler


def received_types(handler: ListenerRouteHandler) -> list[FieldDefinition]:
    """Return the types of the messages that clients send."""
    pings = [FieldDefinition.from_annotation(Ping)] if handler.answers_pings else []
    return [*_members(handler.parsed_data_field), *pings]


def sent_types(handler: ListenerRouteHandler) -> list[FieldDefinition]:
    """Return the types of the messages that clients receive: the answers, what `sends` names, and what the framework
    itself says.
    """
    fields = [handler.parsed_return_field]
    others = (handler.sends, ErrorMessage, Pong if handler.answers_pings else None)
    fields += [FieldDefinition.from_annotation(each) for each in others if each]
    members = [member for field in fields for member in _members(field) if member.annotation is not NoneType]
    return [member for at, member in enumerate(members) if member not in members[:at]]


def _members(field: FieldDefinition | None) -> list[FieldDefinition]:
    """Return the types in a union, or the one that there is; none where nothing is annotated."""
    if field is None:
        return []
    if alias := getattr(field.annotation, "__value__", None):  # of the statement `type Incoming = Say | Wave`
        return _members(FieldDefinition.from_annotation(alias))
    return [member for inner in field.inner_types for member in _members(inner)] if field.is_union else [field]
