"""`ListenerRouteHandler`: the route handler behind `@listener` and `Listener`."""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
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
from ..checks.injection import check_parameters
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
from .injection import PASSED, bind_arguments, request_arguments, request_dependencies
from .message_loop import MessageLoop
from .messages import OWN_MESSAGES, RESERVED_FIELDS, RESERVED_TAGS, Cancel, Codec, End, ErrorMessage, Ping, Pong
from .scopes import MessageScopes, Scope, injectable

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
        self.sends = sends
        self.streams = self.takes_socket = False
        self._per_message = dict(per_message or {})
        self._cancel_on_disconnect, self._concurrency = cancel_on_disconnect, concurrency
        self._client_speaks_first = client_speaks_first
        self._has_hooks = bool(on_accept or on_disconnect)
        self._on_accept = bind_arguments(on_accept or _no_hook)
        self._on_disconnect = bind_arguments(on_disconnect or _no_hook)
        self._lifespan = bind_arguments(connection_lifespan) if connection_lifespan else None
        super().__init__(path, dto=None, return_dto=None, **options)  # pyright: ignore[reportUnknownMemberType]
        functions = {
            "on_accept_dependencies": on_accept,
            "on_disconnect_dependencies": on_disconnect,
            "lifespan_dependencies": connection_lifespan,
        }
        requests = {name: request_arguments(function) for name, function in functions.items() if function}
        self._requested = {name: Provide(request) for name, request in requests.items() if request}
        self.dependencies = {**(dependencies or {}), **self._requested}

    def __call__(self, fn: AnyCallable) -> Self:
        check_listener_function(fn)
        check_concurrency(self._concurrency, fn)
        if self.sends is not None:
            check_sends(self.sends, fn)
        scopes = MessageScopes(fn, self._per_message) if self._per_message else None
        self.streams = inspect.isasyncgenfunction(fn)
        seen = injectable(fn, self._per_message) if scopes or self.streams else fn
        self.takes_socket = "socket" in inspect.signature(seen).parameters
        super().__call__(seen)
        loop = MessageLoop(
            self, fn, scopes, concurrency=self._concurrency, cancel_on_disconnect=self._cancel_on_disconnect
        )
        set_function(self, loop, fn)
        return self

    def on_registration(self, app: Litestar) -> None:
        # Litestar begins a task for each dependency that waits for no other, where there are several. As this one waits
        # for `connection`, a listener that takes nothing else pays for no task.
        first = {"connection"} & self.dependency_name_set
        lifespan = Provide(request_dependencies([*first, *self._requested]))
        self.dependencies = {**(self.dependencies or {}), "connection_lifespan_dependencies": lifespan}
        super().on_registration(app)
        function = function_of(self)
        check_scopes(self, function, self._per_message)
        warn_of_sessions(self)
        self.resolve_receive_handler()  # builds the decoder: a type that cannot be decoded stops the service here
        if self.codec.is_json:
            for types, fields in ((self.received_types(), {"ref"}), (self.sent_types(), RESERVED_FIELDS)):
                for kind in {each.annotation for each in types} - OWN_MESSAGES:
                    check_reserved(function, kind, RESERVED_TAGS, fields)

    def resolve_receive_handler(self) -> Callable[[Socket], Awaitable[Any]]:
        return self.codec.receive

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

    def default_connection_lifespan(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        socket: Socket,
        on_accept_dependencies: dict[str, Any] | None = None,
        on_disconnect_dependencies: dict[str, Any] | None = None,
        lifespan_dependencies: dict[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[None]:
        hooks: list[HookPair] = []
        if self._has_hooks:
            on_disconnect = partial(self._on_disconnect, on_disconnect_dependencies)
            hooks.append(HookPair(partial(self._on_accept, on_accept_dependencies), on_disconnect))
        inner = None
        if self._lifespan:
            inner = partial(self._lifespan, lifespan_dependencies, socket, Session.of(socket).ensure_connection())
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
