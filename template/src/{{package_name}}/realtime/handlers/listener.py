"""`@listener` and `Listener`: Litestar's listeners, in `connection_lifespan`, with messages that are validated.

Both make a `ListenerRouteHandler`.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import cached_property, partial
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, Self, TypedDict, Unpack, get_args

import msgspec
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.handlers.websocket_handlers import WebsocketListenerRouteHandler
from litestar.routes import WebSocketRoute
from litestar.types import AnyCallable
from litestar.types.asgi_types import WebSocketMode
from litestar.typing import FieldDefinition

from ..checks.definitions import (
    HOOKS,
    check_hook,
    check_keywords,
    check_lifespan,
    check_listener_function,
    check_parameters,
    resolve_hints,
)
from ..checks.registration import check_names, check_reserved, check_scopes, warn_of_sessions
from ..errors import ConfigurationError
from ..internals import function_of, owner_of, set_function
from ..sessions.lifespan import HookPair
from ..sessions.session import Session, Socket
from .message_loop import MessageLoop, Scope, binder
from .messages import OWN_MESSAGES, RESERVED_FIELDS, RESERVED_TAGS, Cancel, Codec, End, ErrorMessage, Ping, Pong

Handler = Callable[..., Awaitable[Any] | AsyncGenerator[Any, None]]
"""An async function, or one that yields; it takes `data`, the typed message, and whatever Litestar can inject."""

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None] | None]
"""Litestar's guard, with the type parameters that strict type checkers miss in Litestar's own."""

Lifespan = Callable[..., AbstractAsyncContextManager[Any]]
"""A function under `@asynccontextmanager`. Type checkers refuse one that lacks the decorator."""

Messages = type[msgspec.Struct] | UnionType
"""A message, or several: `Joined`, `Joined | Left`."""

NO_LIFESPAN: Final = nullcontext()

PASSED = ("socket", "connection", "cause")
"""The names of what hooks and lifespans are called with; Litestar injects everything else."""


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
        for kind, hook in zip(HOOKS, hooks, strict=True):
            if hook:
                check_hook(hook)
                check_parameters(hook, kind, PASSED)
        self.cancel_on_disconnect, self.concurrency, self.sends = cancel_on_disconnect, concurrency, sends
        self.streams = False
        self.client_speaks_first = client_speaks_first
        self._per_message = per_message or {}
        self._around = [each for each in (*hooks, connection_lifespan) if each]
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
        return [function_of(self), *self._per_message.values(), *self._around]

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
                    if is_documented(self):
                        _check_schema(function, kind)

    @cached_property
    def codec(self) -> Codec:
        """The codec of the received messages."""
        try:
            return Codec(self, streams=self.streams)
        except (TypeError, NameError) as error:
            raise ConfigurationError(
                function_of(self),
                f"has a parameter `data` to which no message can be decoded: {error}",
                "make each message a msgspec.Struct with its own tag, as in messages.py, and import the types of its "
                "fields outside `if TYPE_CHECKING:`",
            ) from None

    def hooks_with(self, injected: dict[str, Any]) -> Sequence[HookPair]:
        """Return the hooks of the listener, with what Litestar has injected, by name."""
        return [HookPair(*(partial(_call, bind, injected) for bind in self.hooks))] if self.hooks else ()

    def lifespan_with(self, injected: dict[str, Any], session: Session) -> Any:
        """Return the lifespan of the listener, with what Litestar has injected, by name; or one that does nothing."""
        if self._lifespan is None:
            return NO_LIFESPAN
        lifespan = _call(self._lifespan, injected, injected["socket"], session.ensure_connection())
        return _bounded(lifespan, session.settings.hook_seconds)

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


class Options(TypedDict, total=False):
    """The options of a listener: keywords of `@listener`, and attributes of a `Listener`."""

    cancel_on_disconnect: bool
    client_speaks_first: bool
    concurrency: int
    connection_lifespan: Lifespan | None
    dependencies: Mapping[str, Provide | AnyCallable] | None
    guards: list[Guard] | None
    sends: Messages | None
    middleware: list[Any] | None
    name: str | None
    opt: dict[str, Any] | None
    per_message: Mapping[str, Scope] | None
    receive_mode: WebSocketMode
    send_mode: WebSocketMode
    signature_namespace: Mapping[str, Any] | None
    type_decoders: Sequence[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]]] | None
    type_encoders: Mapping[Any, Callable[[Any], Any]] | None
    websocket_class: type[Socket] | None


def listener(path: str | list[str], **options: Unpack[Options]) -> Callable[[Handler], ListenerRouteHandler]:
    """Make an async function the listener of a path.

    The function is called with each message as `data`, decoded and validated by its annotation. What it returns is
    sent; None is not. A function that yields answers with a stream: its items are sent in order, while the connection
    reads on. A message that cannot be decoded is answered with an `ErrorMessage`, and the function is not called; it
    refuses a message by `MessageError`. Every answer carries the `ref` of its message, if that had one.

    Args:
        path: The path, or several, with path parameters as in `/ws/rooms/{room:str}`.
        cancel_on_disconnect: Cancel the function as soon as the client is gone. Otherwise it runs to its end. A stream
            is cancelled in any case.
        client_speaks_first: Close a client that sends no message within FIRST_MESSAGE_SECONDS, with code 1008.
        concurrency: Messages of one connection that are handled at once, each in a task of its own. With 1 they are
            answered in order. Beyond it the connection is not read. Not for a function that yields: MAX_STREAMS bounds
            it.
        connection_lifespan: An async context manager of this listener's own, inside the lifespan of each connection:
            entered after `on_accept`, with the socket accepted, and left before `on_disconnect`, within HOOK_SECONDS.
            It may take `socket`, `connection` and whatever Litestar can inject.
        dependencies: Litestar's providers, by the names under which they are injected.
        guards: Litestar's guards, which may refuse a handshake.
        sends: The messages that clients receive here besides the answers, as in `sends=Joined | Left`, whoever
            publishes them. They are documented with the answers.
        middleware: Litestar's middleware for this path.
        name: The name of the route, for Litestar's `route_reverse`.
        opt: Litestar's options, readable by guards and middleware. `opt={"allow": [...]}` allows what a check refuses.
        per_message: What is made for each message and undone before its answer is sent, such as the transaction of a
            database: async generator functions that yield once, by the names under which the function takes it. They
            may take each other, and whatever Litestar can inject. What is published inside is held back until they have
            been left without an exception. For a stream they last as long as the stream.
        receive_mode: The kind of frames that messages come in: "text", or "binary" for JSON in binary frames.
        send_mode: The kind of frames that answers in JSON are sent in.
        signature_namespace: Names for Litestar to resolve annotations with.
        type_decoders: Litestar's decoders for the types in messages that msgspec does not know.
        type_encoders: Litestar's encoders for the types in answers that msgspec does not know.
        websocket_class: A subclass of Litestar's `WebSocket`, injected as `socket`.

    Returns:
        A decorator; it returns what `route_handlers=[...]` takes.

    Raises:
        ConfigurationError: The function or an option is wrong; the message names the place, the mistake and the fix.
    """

    def decorate(function: Handler) -> ListenerRouteHandler:
        check_keywords(options, Options.__annotations__, function)
        return ListenerRouteHandler(path, **options)(function)

    return decorate


class Listener(WebsocketListener):
    """A listener as a class: `path`, `on_receive`, and where it needs them `on_accept` and `on_disconnect`.

    `on_receive` is called as the function under `@listener` is. `on_accept` and `on_disconnect` run inside the hooks of
    the service. They take what they name: `socket`, `connection`, `cause` (in `on_disconnect`), and whatever Litestar
    can inject. The options of `@listener` are attributes of the class.

    There is one instance for all connections, so it keeps nothing: setting an attribute on it raises
    `ConfigurationError`. What belongs to a connection goes into `Connection`.
    """

    client_speaks_first: ClassVar[bool] = False
    """Close a client that sends no message within FIRST_MESSAGE_SECONDS, with code 1008."""
    cancel_on_disconnect: ClassVar[bool] = False
    """Cancel `on_receive` as soon as the client is gone. Otherwise it runs to its end."""
    guards: Sequence[Guard] | None = None  # type: ignore[assignment]  # pyright: ignore
    """Litestar's guards, which may refuse a handshake. A tuple: linters refuse a list in a class."""
    concurrency: ClassVar[int] = 1
    """Messages of one connection that are handled at once."""
    connection_lifespan: ClassVar[Lifespan | None] = None
    """An async context manager inside the lifespan of each connection, between the hooks and the messages."""
    per_message: ClassVar[Mapping[str, Scope] | None] = None
    """What is made for each message and undone before its answer is sent."""
    sends: ClassVar[Messages | None] = None
    """The messages that clients receive here besides the answers, as in `sends = Joined | Left`."""

    _serves = False

    def to_handler(self) -> ListenerRouteHandler:
        """Make the route handler; Litestar calls this once, when it registers the class.

        Returns:
            The handler.

        Raises:
            ConfigurationError: A method or an attribute is wrong.
        """
        cls: Any = type(self)
        hooks = {
            name: getattr(self, name) for name in HOOKS if getattr(cls, name) is not getattr(WebsocketListener, name)
        }
        options = {name: getattr(cls, name) for name in Options.__annotations__}
        options["guards"] = self.guards and [*self.guards]  # Litestar adds lists to it
        handler = ListenerRouteHandler(self.path, **hooks, **options)(self.on_receive)
        handler.owner = owner_of(self)
        self._serves = True
        return handler

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, before the class is registered.

        Raises:
            ConfigurationError: The class is registered, so all connections would see the value.
        """
        if self._serves:
            raise ConfigurationError(
                type(self),
                f"sets self.{name} while it serves, but all connections share the listener and would see the value",
                f"make {name} a field of Connection in state.py and set connection.{name}",
            )
        super().__setattr__(name, value)


def injectable(function: AnyCallable, scopes: Mapping[str, AnyCallable], others: Iterable[AnyCallable]) -> AnyCallable:
    """Return a function with the signature that Litestar is to see.

    It takes what Litestar injects into `function`, into its scopes, and into the others: the hooks and the lifespan. It
    returns one item of a stream.
    """
    parameters: dict[str, inspect.Parameter] = {}
    takers = [(each, tuple(scopes)) for each in (function, *scopes.values())]
    for each, passed in [*takers, *((other, PASSED) for other in others)]:
        each_hints = resolve_hints(each)
        for name, parameter in inspect.signature(each).parameters.items():
            is_bound = name in getattr(each, "keywords", ())  # by a partial: no query parameter may replace it
            if name in each_hints and name not in passed and name not in parameters and not is_bound:
                keyword = inspect.Parameter.KEYWORD_ONLY
                parameters[name] = parameter.replace(kind=keyword, annotation=each_hints[name])
    returned = resolve_hints(function).get("return", Any)
    if inspect.isasyncgenfunction(function):
        returned = get_args(returned)[0]

    async def signature(**_: Any) -> None: ...

    signature.__annotations__ = {name: each.annotation for name, each in parameters.items()} | {"return": returned}
    signature.__name__ = function.__name__
    signature.__doc__ = function.__doc__
    vars(signature)["__signature__"] = inspect.Signature([*parameters.values()], return_annotation=returned)
    return signature


def description_of(field: FieldDefinition | None) -> str | None:
    """Return the description of a parameter, as in `Annotated[str, PathParameter(description="The room.")]`."""
    return getattr(field and field.kwarg_definition, "description", None)


def given_type(field: FieldDefinition) -> Any:
    """Return the type of a parameter that is given: without the None that stands for one that is not."""
    kinds = [inner.raw for inner in field.inner_types if inner.annotation is not NoneType]
    return kinds[0] if field.is_optional and len(kinds) == 1 else field.raw


def json_schemas(kinds: Iterable[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """Return the JSON schemas of types, and of what they refer to. One that msgspec does not know has but a title."""
    return msgspec.json.schema_components(
        kinds, schema_hook=lambda kind: {"title": kind.__name__}, ref_template="{name}"
    )


def _check_schema(function: AnyCallable, kind: Any) -> None:
    try:
        json_schemas([kind])
    except TypeError as error:
        raise ConfigurationError(
            kind,
            f"is a message of {function.__name__} and has no JSON schema, which its documentation needs: {error}",
            "write a default of a class of your own as field(default_factory=...)",
        ) from None


def is_documented(handler: ListenerRouteHandler) -> bool:
    """Return whether the listener is documented: neither it nor a router around it says `include_in_schema=False`."""
    return bool(handler.opt.get("include_in_schema", True))


def listener_routes(app: Litestar) -> Iterator[tuple[WebSocketRoute, ListenerRouteHandler]]:
    """Yield the path and the handler of each listener that is documented.

    A client is made of `path_format` and `path_parameters` of the first, its `query_of`, and `taken_types`,
    `answer_types`, `sends` and `streams` of the second.
    """
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            handler = route.route_handler
            if isinstance(handler, ListenerRouteHandler) and is_documented(handler):
                yield route, handler


async def _no_hook() -> None: ...


@asynccontextmanager
async def _bounded(lifespan: AbstractAsyncContextManager[Any], seconds: float) -> AsyncGenerator[None, None]:
    """Enter a lifespan that may take so many seconds to be left; after them it is cancelled, which is a bug."""
    async with asyncio.timeout(None) as limit, lifespan:
        try:
            yield
        finally:
            limit.reschedule(asyncio.get_running_loop().time() + seconds)


def _call(bind: Callable[..., Callable[[], Any]], injected: dict[str, Any], *passed: Any) -> Any:
    """Call a function with the arguments that it takes: those injected, the socket, the connection and the cause."""
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
