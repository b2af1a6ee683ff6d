"""`@listener` and `Listener`: Litestar's listeners, with the lifespan inside and messages that are really typed."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from types import UnionType
from typing import Any, ClassVar, Never, Self

import msgspec
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.handlers.websocket_handlers import WebsocketListenerRouteHandler
from litestar.types import AnyCallable
from litestar.types.asgi_types import WebSocketMode
from litestar.typing import FieldDefinition

from ..checks.checks import check_function, check_hook, check_keywords, check_lifespan, check_parameters, check_sends
from ..errors import ConfigurationError, source_location
from ..internals import function_of
from ..sessions.cause import Cause
from ..sessions.info import ConnectionInfo
from ..sessions.lifespan import connection_context
from ..sessions.runtime import HookPair
from ..sessions.session import Session, Socket
from .messages import PINGS, PONG, ErrorMessage

Lifespan = Callable[..., AbstractAsyncContextManager[Any]]
"""A function under `@asynccontextmanager`. Type checkers refuse one that lacks the decorator."""

Handler = Callable[..., Awaitable[Any]]
"""An async function; it takes `data`, the typed message, and whatever Litestar can inject."""

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None] | None]
"""Litestar's guard, with the type parameters that strict type checkers miss in Litestar's own."""

Messages = type[msgspec.Struct] | UnionType
"""A message, or several: `Joined`, `Joined | Left`."""

MAX_DETAIL = 200
"""Characters of a decoder's complaint that go back to the client: it quotes what the client sent."""


def listener(
    path: str | list[str],
    *,
    client_speaks_first: bool = False,
    connection_lifespan: Lifespan | None = None,
    dependencies: Mapping[str, Provide | AnyCallable] | None = None,
    dto: None = None,
    guards: list[Guard] | None = None,
    sends: Messages | None = None,
    middleware: list[Any] | None = None,
    name: str | None = None,
    opt: dict[str, Any] | None = None,
    receive_mode: WebSocketMode = "text",
    return_dto: None = None,
    send_mode: WebSocketMode = "text",
    signature_namespace: Mapping[str, Any] | None = None,
    type_decoders: Sequence[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]]] | None = None,
    type_encoders: Mapping[Any, Callable[[Any], Any]] | None = None,
    websocket_class: type[Socket] | None = None,
    **unknown: Never,
) -> Callable[[Handler], "ListenerRouteHandler"]:
    """Make an async function the listener of a path.

    It is called with each message as `data`, decoded and validated by its annotation; what it returns is sent, `None`
    is not. The options are those of Litestar's `websocket_listener`; DTOs are off, for msgspec does their work.

    Args:
        path: The path, or several, with path parameters as in `/ws/rooms/{room:str}`.
        client_speaks_first: A client that sends no message within FIRST_MESSAGE_SECONDS is closed with 1008.
        connection_lifespan: A context of this listener's own, inside the life of each connection: entered after
            `on_accept`, left before `on_disconnect`. It finds the socket accepted.
        sends: What clients hear here besides the answers, for whoever publishes it: `sends=Joined | Left`. It is
            documented with the answers; a test of the service complains of what is heard and not named.

    Raises:
        ConfigurationError: What is decorated cannot be a listener; the message names the place and the mend.
    """
    options: dict[str, Any] = {
        "client_speaks_first": client_speaks_first,
        "dependencies": dependencies,
        "dto": dto,
        "guards": guards,
        "sends": sends,
        "middleware": middleware,
        "name": name,
        "opt": opt,
        "receive_mode": receive_mode,
        "return_dto": return_dto,
        "send_mode": send_mode,
        "signature_namespace": signature_namespace,
        "type_decoders": type_decoders,
        "type_encoders": type_encoders,
        "websocket_class": websocket_class,
    }

    def decorate(function: Handler) -> ListenerRouteHandler:
        check_keywords(unknown, listener, function)
        return ListenerRouteHandler(path, connection_lifespan=connection_lifespan, **options)(function)

    return decorate


class Listener(WebsocketListener):
    """A listener as a class: `path`, `on_receive`, and `on_accept` and `on_disconnect` where it needs them.

    `on_accept` and `on_disconnect` run inside the hooks of the service. They take what they name: `socket`,
    `connection`, `cause` (in `on_disconnect`), and whatever Litestar can inject.

    There is one instance for all connections, so it keeps nothing: once it serves, setting an attribute on it is an
    error. What belongs to a connection goes into `Connection`.
    """

    client_speaks_first: ClassVar[bool] = False
    """A client that sends no message within FIRST_MESSAGE_SECONDS is closed with 1008."""
    sends: ClassVar[Messages | None] = None
    """What clients hear here besides the answers, for whoever publishes it: `sends = Joined | Left`."""

    _serves = False

    def to_handler(self) -> "ListenerRouteHandler":
        cls: Any = type(self)
        handler = ListenerRouteHandler(
            self.path,
            client_speaks_first=self.client_speaks_first,
            on_accept=None if cls.on_accept is WebsocketListener.on_accept else self.on_accept,
            on_disconnect=None if cls.on_disconnect is WebsocketListener.on_disconnect else self.on_disconnect,
            dependencies=self.dependencies,
            guards=cls.guards,
            sends=self.sends,
            middleware=self.middleware,
            name=self.name,
            opt=self.opt,
            receive_mode=self.receive_mode,
            send_mode=self.send_mode,
            signature_namespace=self.signature_namespace,
            type_decoders=self.type_decoders,
            type_encoders=self.type_encoders,
            websocket_class=cls.websocket_class,
        )(self.on_receive)
        handler.owner = self._owner
        self._serves = True
        return handler

    def __setattr__(self, name: str, value: object) -> None:
        if self._serves:
            raise ConfigurationError(
                source_location(type(self)),
                f"sets self.{name} while it serves; the listener is one object for all connections, "
                "so each of them would see it",
                f"make {name} a field of Connection in state.py and set connection.{name}",
            )
        super().__setattr__(name, value)


class ListenerRouteHandler(WebsocketListenerRouteHandler):
    """The route handler behind `@listener` and `Listener`."""

    __slots__ = (
        "_begin",
        "_client_speaks_first",
        "_decode",
        "_end",
        "_own_lifespan",
        "_receive",
        "_send",
        "_wanted",
        "sends",
    )

    def __init__(
        self,
        path: str | list[str] | None,
        *,
        client_speaks_first: bool = False,
        connection_lifespan: Lifespan | None = None,
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
                check_parameters(hook, "hook", GIVEN)
        self.sends = sends
        self._client_speaks_first = client_speaks_first
        self._own_lifespan = _giving(connection_lifespan)
        self._begin, self._end = _giving(on_accept), _giving(on_disconnect)
        self._decode: Callable[[Any], Any] | None = None
        self._receive: Callable[[Socket], Awaitable[Any]] | None = None
        self._send: Callable[[Socket, Any], Awaitable[None]] | None = None
        options |= {"dto": None, "return_dto": None}
        begin, end, inside = _arguments_of(on_accept), _arguments_of(on_disconnect), _arguments_of(connection_lifespan)
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            path, on_accept=begin, on_disconnect=end, dependencies=dependencies, **options
        )
        asked = {"on_accept_dependencies": begin, "on_disconnect_dependencies": end, "lifespan_dependencies": inside}
        self._wanted = {name: Provide(function) for name, function in asked.items() if function}
        self.dependencies = {**(dependencies or {}), **self._wanted}

    def __call__(self, fn: AnyCallable) -> Self:
        check_function(fn)
        if self.sends is not None:
            check_sends(self.sends, fn)
        return super().__call__(fn)

    def on_registration(self, app: Litestar) -> None:
        # Litestar begins a task for each dependency that waits for no other, where there are several. As this one waits
        # for `connection`, a listener that wants nothing else pays for no task.
        first = {"connection"} & self.dependency_name_set
        lifespan = Provide(_arguments_of_lifespan([*first, *self._wanted]))
        self.dependencies = {**(self.dependencies or {}), "connection_lifespan_dependencies": lifespan}
        super().on_registration(app)
        self.resolve_receive_handler()  # builds the decoder: a type that cannot be decoded stops the service here

    def default_connection_lifespan(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        socket: Socket,
        on_accept_dependencies: dict[str, Any] | None = None,
        on_disconnect_dependencies: dict[str, Any] | None = None,
        lifespan_dependencies: dict[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[None]:
        async def begin(socket: Socket, connection: ConnectionInfo) -> None:
            if self._begin:
                await self._begin({"socket": socket, "connection": connection}, on_accept_dependencies)

        async def end(socket: Socket, connection: ConnectionInfo, cause: Cause) -> None:
            if self._end:
                given = {"socket": socket, "connection": connection, "cause": cause}
                await self._end(given, on_disconnect_dependencies)

        stages = [HookPair(begin, end)] if self._begin or self._end else []
        inner = None
        if self._own_lifespan:
            given = {"socket": socket, "connection": Session.of(socket).ensure_connection()}
            inner = partial(self._own_lifespan, given, lifespan_dependencies)
        return connection_context(socket, stages, inner, client_speaks_first=self._client_speaks_first)

    def resolve_receive_handler(self) -> Callable[[Socket], Awaitable[Any]]:
        if self._receive is None:
            self._receive = self._make_receive()
        return self._receive

    def resolve_send_handler(self) -> Callable[[Socket, Any], Awaitable[None]]:  # type: ignore[override]
        if self._send is None:
            self._send = self._make_send()
        return self._send

    def _make_receive(self) -> Callable[[Socket], Awaitable[Any]]:
        decode = self._decode = self._decode or self._make_decoder()
        answers_pings = self.answers_pings

        async def receive(socket: Socket) -> Any:
            receive_event = Session.of(socket).receive_event
            while True:
                event: Any = await receive_event()
                if event["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(detail="the client disconnected", code=event["code"])
                try:
                    return decode(event)
                except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                    # Only here: a message pays nothing for it, and a handler that has a `ping` of its own keeps it.
                    if answers_pings and event.get("text") in PINGS:
                        await socket.send_text(PONG)
                    else:
                        await _answer_bad_message(socket, error)

        return receive

    def _make_send(self) -> Callable[[Socket, Any], Awaitable[None]]:
        encode = msgspec.json.Encoder(enc_hook=self.default_serializer).encode
        binary = self._send_mode == "binary"

        async def send(socket: Socket, data: Any) -> None:
            if data is None:
                return
            if isinstance(data, bytes):
                await socket.send_bytes(data)
                return
            text = not binary or isinstance(data, str)
            payload = data.encode() if isinstance(data, str) else encode(data)
            if not (text and Session.of(socket).write_text(payload)):
                await socket.send_data(payload, mode="text" if text else "binary")

        return send

    @property
    def answers_pings(self) -> bool:
        """A `ping` in JSON is answered by the wiring: it is no message that the handler would take."""
        if self._takes_binary():
            return False
        try:
            self._decode = self._decode or self._make_decoder()
            self._decode({"text": next(iter(PINGS))})
        except msgspec.DecodeError:
            return True
        return False

    def _takes_binary(self) -> bool:
        field = self.parsed_data_field
        return self._receive_mode == "binary" or (field is not None and field.annotation is bytes)

    def _make_decoder(self) -> Callable[[Any], Any]:
        """Return what turns a `websocket.receive` event into a message, or raises `msgspec.DecodeError`."""
        field = self.parsed_data_field or FieldDefinition.from_annotation(Any)
        binary = self._takes_binary()
        key = "bytes" if binary else "text"
        expected, other = ("binary", "text") if binary else ("text", "binary")
        decode: Callable[[Any], Any]
        if field.annotation in {str, bytes}:
            decode = field.annotation
        else:
            try:
                decode = msgspec.json.Decoder(field.raw, dec_hook=self.default_deserializer).decode
            except TypeError as error:
                raise ConfigurationError(
                    source_location(function_of(self)),
                    f"no message can be decoded as `data`: {error}",
                    "make each message a msgspec.Struct with its own tag, as in messages.py",
                ) from None

        def decode_event(event: Any) -> Any:
            frame = event.get(key)
            if frame is None:
                raise msgspec.DecodeError(f"Expected a {expected} frame, got a {other} frame")
            return decode(frame)

        return decode_event


async def _answer_bad_message(socket: Socket, error: Exception) -> None:
    await Session.of(socket).count_bad_message()
    detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    answer = ErrorMessage(code="invalid_message", detail=detail[:MAX_DETAIL])
    await socket.send_data(msgspec.json.encode(answer))


INJECTED: Any = NamedDependency[Any]  # type: ignore[misc]  # mypy takes it for no generic class

GIVEN = ("socket", "connection", "cause")
"""What the wiring passes to the hooks of a `Listener` by itself; all else is injected by Litestar."""


def _giving(function: AnyCallable | None) -> Callable[[dict[str, Any], dict[str, Any] | None], Any] | None:
    """Make a function that calls `function` with what it names of the given, and with what Litestar injects.

    The names are read here, once, and not for each connection.
    """
    if function is None:
        return None
    names = [name for name in inspect.signature(function).parameters if name in GIVEN]

    def call(given: dict[str, Any], injected: dict[str, Any] | None) -> Any:
        return function(**{name: given[name] for name in names if name in given}, **injected or {})

    return call


def _arguments_of(function: AnyCallable | None) -> Callable[..., Awaitable[dict[str, Any]]] | None:
    """Make a function that asks Litestar for what `function` wants injected, and returns it; None where it wants
    nothing.
    """
    if function is None:
        return None

    @wraps(function)
    async def arguments(**injected: Any) -> dict[str, Any]:
        return injected

    signature = inspect.signature(function)
    wanted = [parameter for parameter in signature.parameters.values() if parameter.name not in GIVEN]
    vars(arguments)["__signature__"] = signature.replace(parameters=wanted)
    return arguments if wanted else None


def _arguments_of_lifespan(names: Iterable[str]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Make a function that asks Litestar for the socket and for these, and returns what the lifespan takes of them."""

    async def arguments(*, connection: object = None, **injected: Any) -> dict[str, Any]:  # noqa: ARG001
        return injected

    annotations: dict[str, Any] = {"socket": Socket, **dict.fromkeys(names, INJECTED)}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, annotation=each) for name, each in annotations.items()]
    vars(arguments)["__signature__"] = inspect.Signature(parameters)
    arguments.__annotations__ = annotations
    return arguments
