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

from ..checks.hooks import check_hook, check_lifespan
from ..checks.injection import check_names, check_parameters
from ..checks.listeners import check_listener_function, check_reserved, check_scopes, warn_of_sessions
from ..errors import ConfigurationError
from ..internals import function_of, set_function
from ..sessions.lifespan import HookPair, connection_context
from ..sessions.session import Session, Socket
from .injection import PASSED, Scope, binder, injectable
from .message_loop import MessageLoop
from .messages import OWN_MESSAGES, RESERVED_FIELDS, RESERVED_TAGS, Cancel, Codec, End, ErrorMessage, Ping, Pong

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
        hooks = (on_accept, on_disconnect)
        for hook in filter(None, hooks):
            check_hook(hook)
            check_parameters(hook, "hook", PASSED)
        self.cancel_on_disconnect, self.concurrency, self.sends = cancel_on_disconnect, concurrency, sends
        self.streams = False
        self._client_speaks_first = client_speaks_first
        self._per_message = dict(per_message or {})
        self._around = (*hooks, connection_lifespan)
        self.hooks = [binder(hook or _no_hook) for hook in hooks] if any(hooks) else []
        self._lifespan = connection_lifespan and binder(connection_lifespan)
        super().__init__(path, dto=None, return_dto=None, **options)  # pyright: ignore[reportUnknownMemberType]
        self.dependencies = {**(dependencies or {})}  # without Litestar's own for the hooks

    def __call__(self, fn: AnyCallable) -> Self:
        check_listener_function(fn, self.concurrency, self.sends)
        self.streams = inspect.isasyncgenfunction(fn)
        loop = MessageLoop(self, fn, self._per_message)
        super().__call__(injectable(fn, self._per_message, self._around))
        set_function(self, loop, fn)
        return self

    @property
    def source(self) -> Any:
        """What the user wrote: the function, or the class of a `Listener`."""
        function = function_of(self)
        return type(function.__self__) if inspect.ismethod(function) else function

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
                function_of(self),
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
        hooks = [HookPair(*(partial(_call, bind, injected) for bind in self.hooks))] if self.hooks else []
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


def description_of(field: FieldDefinition | None) -> str | None:
    """Return the description of a parameter, as in `Annotated[str, PathParameter(description="The room.")]`."""
    return getattr(field and field.kwarg_definition, "description", None)


def given_type(field: FieldDefinition) -> Any:
    """Return the type of a parameter that is given: without the None that stands for one that is not."""
    kinds = [inner.raw for inner in field.inner_types if inner.annotation is not NoneType]
    return kinds[0] if field.is_optional and len(kinds) == 1 else field.raw


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
