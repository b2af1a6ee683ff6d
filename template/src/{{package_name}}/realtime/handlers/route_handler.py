"""`ListenerRouteHandler`: the route handler behind `@listener` and `Listener`."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cached_property, partial
from types import NoneType, UnionType
from typing import Any, Self

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers.websocket_handlers import WebsocketListenerRouteHandler
from litestar.routes import WebSocketRoute
from litestar.types import AnyCallable
from litestar.typing import FieldDefinition

from ..checks.hooks import check_hook
from ..checks.injection import check_names, check_parameters
from ..checks.lifespans import check_lifespan
from ..checks.listeners import (
    check_concurrency,
    check_listener_function,
    check_reserved,
    check_scopes,
    check_sends,
    warn_of_sessions,
)
from ..errors import ConfigurationError, source_location
from ..internals import function_of, set_function
from ..sessions.lifespan import HookPair, connection_context
from ..sessions.session import Session, Socket
from .injection import PASSED, binder, injectable
from .message_loop import MessageLoop
from .messages import OWN_MESSAGES, RESERVED_FIELDS, RESERVED_TAGS, Cancel, Codec, End, ErrorMessage, Ping, Pong
from .scopes import Scope

Lifespan = Callable[..., AbstractAsyncContextManager[Any]]
"""A function under `@asynccontextmanager`. Type checkers refuse one that lacks the decorator."""

Messages = type[msgspec.Struct] | UnionType
"""A message, or several: `Joined`, `Joined | Left`."""


class ListenerRouteHandler(WebsocketListenerRouteHandler):
    """Litestar's route handler for listeners, in `connection_lifespan`, with messages that are validated.

    Args:
        path: As in `listener`, with all that is not named here.
        on_accept: The hook of a `Listener`, after that of the service.
        on_disconnect: The hook of a `Listener`, before that of the service.
    """

    def __init__(
        self,
        path: str | list[str] | None,
        *,
        cancel_on_disconnect: bool = False,
        client_speaks_first: bool = False,
        concurrency: int = 1,
        connection_lifespan: Lifespan | None = None,
        per_message: Mapping[str, Scope] | None = None,
        sends: Messages | None = None,
        on_accept: AnyCallable | None = None,
        on_disconnect: AnyCallable | None = None,
        dependencies: Mapping[str, Provide | AnyCallable] | None = None,
        **options: Any,
    ) -> None:
        if connection_lifespan:
            check_lifespan(connection_lifespan)
        for hook in (on_accept, on_disconnect):
            if hook:
                check_hook(hook)
                check_parameters(hook, "hook", PASSED)
        self.cancel_on_disconnect, self.concurrency, self.sends = cancel_on_disconnect, concurrency, sends
        self.streams = False
        self._client_speaks_first = client_speaks_first
        self._per_message = dict(per_message or {})
        self._around = (on_accept, on_disconnect, connection_lifespan)
        self._has_hooks = bool(on_accept or on_disconnect)
        self._on_accept, self._on_disconnect = binder(on_accept or _no_hook), binder(on_disconnect or _no_hook)
        self._lifespan = connection_lifespan and binder(connection_lifespan)
        super().__init__(path, dto=None, return_dto=None, **options)  # pyright: ignore[reportUnknownMemberType]
        self.dependencies = {**(dependencies or {})}  # without Litestar's own for the hooks

    def __call__(self, fn: AnyCallable) -> Self:
        check_listener_function(fn)
        check_concurrency(self.concurrency, fn)
        if self.sends is not None:
            check_sends(self.sends, fn)
        self.streams = inspect.isasyncgenfunction(fn)
        loop = MessageLoop(self, fn, self._per_message)
        super().__call__(injectable(fn, self._per_message, self._around))
        set_function(self, loop, fn)
        return self

    @property
    def functions(self) -> list[AnyCallable]:
        """All functions into which Litestar injects."""
        return [function_of(self), *self._per_message.values(), *filter(None, self._around)]

    def on_registration(self, app: Litestar) -> None:
        check_names(self)
        super().on_registration(app)
        function = function_of(self)
        check_scopes(self, function, self._per_message)
        warn_of_sessions(self)
        if self.codec.is_json:  # builds the decoder: a type that cannot be decoded stops the service here
            for types, fields in ((self.received_types(), {"ref"}), (self.sent_types(), RESERVED_FIELDS)):
                for kind in {each.annotation for each in types} - OWN_MESSAGES:
                    check_reserved(function, kind, RESERVED_TAGS, fields)

    @cached_property
    def codec(self) -> Codec:
        """What receives the messages."""
        try:
            return Codec(self, streams=self.streams)
        except (TypeError, NameError) as error:
            raise ConfigurationError(
                source_location(function_of(self)),
                f"no message can be decoded as `data`: {error}",
                "make each message a msgspec.Struct with its own tag, as in messages.py, and import the types of its "
                "fields outside of `if TYPE_CHECKING:`",
            ) from None

    def lifespan(self, injected: dict[str, Any]) -> AbstractAsyncContextManager[None]:
        """Return the lifespan of a connection, with the hooks and the lifespan of the listener inside.

        Args:
            injected: What Litestar has injected, by name, and the socket.
        """
        socket: Socket = injected["socket"]
        hooks: list[HookPair] = []
        if self._has_hooks:
            hooks.append(HookPair(*(partial(_call, bind, injected) for bind in (self._on_accept, self._on_disconnect))))
        inner = None
        if self._lifespan:
            inner = partial(_call, self._lifespan, injected, socket, Session.of(socket).ensure_connection())
        return connection_context(socket, hooks, inner, client_speaks_first=self._client_speaks_first)

    def taken_types(self) -> list[FieldDefinition]:
        """Return the types of the messages that the function takes."""
        return _unique(self.parsed_data_field)

    def answer_types(self) -> list[FieldDefinition]:
        """Return the types of the messages with which the function answers: what it returns or yields."""
        return _unique(self.parsed_return_field)

    def received_types(self) -> list[FieldDefinition]:
        """Return the types of the messages that clients send: those for the function, and those for the framework."""
        return _unique(*self.taken_types(), self.codec.answers_pings and Ping, self.streams and Cancel)

    def reply_types(self) -> list[FieldDefinition]:
        """Return the types of the messages that carry the `ref` of a client's: the answers, an error, an end."""
        return _unique(*self.answer_types(), ErrorMessage, self.streams and End)

    def sent_types(self) -> list[FieldDefinition]:
        """Return the types of the messages that clients receive: the replies, what `sends` names, and the `pong`."""
        return _unique(*self.reply_types(), self.sends, self.codec.answers_pings and Pong)


def listener_routes(app: Litestar) -> Iterator[tuple[WebSocketRoute, ListenerRouteHandler]]:
    """Yield the path and the handler of each listener that is documented.

    A client is made of `path_format` and `path_parameters` of the first, its `query_of`, and `taken_types`,
    `answer_types`, `sends` and `streams` of the second.
    """
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            handler = route.route_handler
            if isinstance(handler, ListenerRouteHandler) and handler.opt.get("include_in_schema", True):
                yield route, handler


async def _no_hook() -> None: ...


def _call(bind: Callable[..., Callable[[], Any]], injected: dict[str, Any], *passed: Any) -> Any:
    """Call a function with what it takes of what is injected and of the socket, the connection and the cause."""
    return bind({**injected, **dict(zip(PASSED, passed, strict=False))})()


def _unique(*types: Any) -> list[FieldDefinition]:
    """Return the types that are given, or are members of unions, each once, without None."""
    fields = [
        each if isinstance(each, FieldDefinition) else FieldDefinition.from_annotation(each) for each in types if each
    ]
    members = [member for field in fields for member in _members(field) if member.annotation is not NoneType]
    return [member for at, member in enumerate(members) if member not in members[:at]]


def _members(field: Any) -> list[FieldDefinition]:
    """Return the types in a union, or the one that there is."""
    if alias := getattr(field.annotation, "__value__", None):  # of the statement `type Incoming = Say | Wave`
        return _members(FieldDefinition.from_annotation(alias))
    return [member for inner in field.inner_types for member in _members(inner)] if field.is_union else [field]
