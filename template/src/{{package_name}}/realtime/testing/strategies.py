"""Hypothesis strategies for what clients send, from annotations: JSON values, with the bounds that msgspec checks.

`hypothesis.strategies.from_type` knows neither `msgspec.Meta` nor the tag of a Struct.
"""

from base64 import b64encode
from contextlib import suppress
from enum import Enum
from functools import cache
from math import ceil, floor
from typing import Annotated, Any, Final, TypeGuard, get_args, get_origin
from urllib.parse import quote, urlencode

import msgspec
from hypothesis import strategies as st
from litestar.openapi.spec import Example
from litestar.routes import WebSocketRoute
from msgspec import inspect

from ..errors import source_location
from ..handlers.listener import ListenerRouteHandler
from ..handlers.messages import OWN_MESSAGES
from ..internals import frames_of, function_of, injected_of, query_of

Values = st.SearchStrategy[Any]

OWNERS: Final = ("alpha", "bravo", "charlie")
"""Those who speak. Texts begin with the name of their owner; numbers and dates are of its residue class."""

SPREAD: Final = 100
"""How many integers are drawn from where a type has no bound: few, because a handler may count up to them."""

SEVERAL: Final = 3
"""Items of a collection, at most, where its type does not ask for more."""

NUMBERED: Final[dict[type[inspect.Type], str]] = {
    inspect.DateTimeType: "2000-01-{}T00:00:00",
    inspect.DateType: "2000-01-{}",
    inspect.DecimalType: "{}.5",
    inspect.TimeDeltaType: "PT0.{}S",
    inspect.TimeType: "00:{}:00",
    inspect.UUIDType: "00000000-0000-4000-8000-0000000000{}",
}
"""How the value with a number is written, of the types that have one for each number from 10 to 31."""


class OwnValues:
    """Strategies for the values of one connection. No other has the same text, number or date.

    Only where a type has few values, as `bool`, a `Literal` or tight bounds, others have them too.

    Args:
        owner: One of `OWNERS`.
        encode: Turns what msgspec does not know into what it does: the `type_encoders` of a handler.
    """

    def __init__(self, owner: str, encode: Any = None) -> None:
        self._owner = owner
        self._residue = OWNERS.index(owner)
        self._encode = encode
        self._structs: dict[Any, Values] = {}

    def of(self, annotation: Any) -> Values:
        """Return a strategy for the JSON values of a type.

        Raises:
            TypeError: Nothing is known about a type in it, and it has no examples.
        """
        return self._of(inspect.type_info(annotation))

    def _of(self, kind: inspect.Type) -> Values:
        match kind:
            case inspect.Metadata(type=inner):
                schema: Any = getattr(kind, "extra_json_schema", None) or {}
                return self._with_examples(inner, schema.get("examples", ()))
            case inspect.UnionType(types=types):
                return st.one_of([self._of(each) for each in types])
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
                return self._structs.setdefault(kind.cls, st.deferred(lambda: self._fields(kind)))
            case inspect.StrType():
                return self._texts(kind)
            case inspect.IntType() | inspect.FloatType():
                return self._numbers(kind)
            case _ if type(kind) in NUMBERED:
                zone = "Z" if getattr(kind, "tz", False) is not False else ""
                return self._integers(10, 31).map((NUMBERED[type(kind)] + zone).format)
            case inspect.BoolType():
                return st.booleans()
            case inspect.NoneType():
                return st.none()
            case inspect.LiteralType(values=values):
                return st.sampled_from(values)
            case inspect.EnumType(cls=enum):
                members: type[Enum] = enum
                return st.sampled_from([member.value for member in members])
            case inspect.BytesType() | inspect.ByteArrayType() | inspect.MemoryViewType():
                texts = self._texts(inspect.StrType(kind.min_length, kind.max_length))
                return texts.map(lambda text: b64encode(text.encode()).decode())
            case inspect.TupleType(item_types=items):
                return st.tuples(*map(self._of, items)).map(list)
            case inspect.DictType(key_type=key, value_type=value):
                return st.dictionaries(self._of(key).map(str), self._of(value), **_sizes(kind))
            case inspect.CollectionType(item_type=item):
                unique = isinstance(kind, inspect.SetType | inspect.FrozenSetType)
                return st.lists(self._of(item), unique_by=msgspec.json.encode if unique else None, **_sizes(kind))
            case inspect.AnyType() | inspect.RawType():
                return self._texts(inspect.StrType()) | self._integers(0, SPREAD)
            case inspect.CustomType(cls=cls):
                return st.from_type(cls).map(self._to_builtins)  # pyright: ignore[reportUnknownMemberType]
            case _:
                raise TypeError(f"nothing is known about {kind}")

    def _to_builtins(self, value: Any) -> Any:
        return msgspec.to_builtins(value, enc_hook=self._encode)

    def _with_examples(self, kind: inspect.Type, examples: Any) -> Values:
        given = [self._to_builtins(each.value if isinstance(each, Example) else each) for each in examples]
        if given and isinstance(kind, inspect.CustomType):
            return st.sampled_from(given)
        return self._of(kind) | st.sampled_from(given) if given else self._of(kind)

    def _fields(self, kind: Any) -> Values:
        required = {each.encode_name: self._of(each.type) for each in kind.fields if each.required}
        optional = {each.encode_name: self._of(each.type) for each in kind.fields if not each.required}
        tag = {kind.tag_field: kind.tag} if getattr(kind, "tag_field", None) else {}
        if getattr(kind, "array_like", False) or isinstance(kind, inspect.NamedTupleType):
            return st.fixed_dictionaries(required | optional).map(lambda drawn: [*tag.values(), *drawn.values()])
        return st.fixed_dictionaries(required, optional=optional).map(lambda drawn: tag | drawn)

    def _integers(self, first: int, last: int) -> Values:
        if last - first < 2 * len(OWNERS):
            return st.integers(first, last)
        mine = st.integers(0, (last - first - self._residue) // len(OWNERS))
        return mine.map(lambda value: first + self._residue + value * len(OWNERS))

    def _numbers(self, kind: inspect.IntType | inspect.FloatType) -> Values:
        """Return a strategy for multiples of a step: of 1, or of a part of the bounds."""
        lowest, highest = kind.gt if kind.ge is None else kind.ge, kind.lt if kind.le is None else kind.le
        step: float = kind.multiple_of or 1
        if lowest is None:
            lowest = 0 if highest is None else min(0, highest - SPREAD * step)
        if highest is None:
            highest = lowest + SPREAD * step
        if isinstance(kind, inspect.FloatType) and not kind.multiple_of:
            step = (highest - lowest) / SPREAD or highest or 1
        first = ceil(lowest / step) if kind.gt is None else floor(lowest / step) + 1
        last = floor(highest / step) if kind.lt is None else ceil(highest / step) - 1
        return self._integers(first, last).map(lambda number: min(max(number * step, lowest), highest))

    def _texts(self, kind: inspect.StrType) -> Values:
        shortest, longest = kind.min_length or 0, kind.max_length
        if kind.pattern:
            drawn = st.from_regex(kind.pattern, fullmatch=True, alphabet=st.characters(codec="utf-8"))
            return drawn.filter(lambda text: shortest <= len(text) <= (longest or len(text)))
        name = self._owner if longest is None or longest > len(self._owner) + 1 else self._owner[0]
        texts = st.integers(0, 9).map(lambda number: f"{name}-{number}" if name == self._owner else f"{name}{number}")
        return texts.map(lambda text: text[:longest].ljust(shortest, name[0]))


def _sizes(kind: Any) -> dict[str, Any]:
    """Return the bounds of a collection, as Hypothesis names them."""
    fewest = kind.min_length or 0
    most = fewest + SEVERAL
    return {"min_size": fewest, "max_size": most if kind.max_length is None else min(most, kind.max_length)}


class Endpoint:
    """A WebSocket handler at one of its paths.

    Args:
        route: The path.
    """

    def __init__(self, route: WebSocketRoute) -> None:
        self.path = route.path_format
        self.handler: Any = route.route_handler
        self._route = route
        self._data: Any = self.handler.parsed_data_field

    @property
    def place(self) -> str:
        """The function, with its file and line."""
        return source_location(function_of(self.handler))

    @property
    def shared(self) -> Any:
        """What is shared on purpose: the reason for all of it, or one for each message or field of `Connection`."""
        return self.handler.opt.get("shared", {})

    @property
    def answers(self) -> bool:
        """It declares that it sends something besides what the framework itself says."""
        types = self.handler.sent_types() if isinstance(self.handler, ListenerRouteHandler) else [self._data]
        return any(each.annotation not in OWN_MESSAGES for each in types if each)

    def conceals(self, message: Any) -> bool:
        """Return whether a message is among those that are shared on purpose."""
        for kind in () if isinstance(self.shared, str) else self.shared:
            if not isinstance(kind, str):
                with suppress(msgspec.ValidationError):
                    msgspec.convert(message, kind)
                    return True
        return False

    @cache  # noqa: B019  there are few, and they are needed until the end
    def addresses(self, owner: str) -> Values:
        """Return a strategy for where a client connects to: the path with its query, and the subprotocols."""
        values = OwnValues(owner)
        types = {name: kind for _, _, each in injected_of(self.handler) for name, kind in each.items()}
        parts: dict[str, Values] = {}
        for name, parameter in self._route.path_parameters.items():
            annotated = types.get(name, parameter.type)
            bare = get_args(annotated)[0] if get_origin(annotated) is Annotated else annotated
            drawn = values.of(annotated if parameter.type in {str, bare} else parameter.type).map(_as_text)
            parts[name] = drawn.filter(lambda text: text not in {"", ".", ".."} and "/" not in text)
        query: tuple[dict[str, Values], dict[str, Values]] = ({}, {})
        for name, field, is_required in query_of(self._route):
            query[not is_required][name] = values.of(types[field.name])
        drawn = st.builds(
            self._address, st.fixed_dictionaries(parts), st.fixed_dictionaries(query[0], optional=query[1])
        )
        subprotocols: list[str] = [*self.handler.opt.get("subprotocols", ())]
        offered = st.sampled_from(subprotocols).map(lambda each: (each,)) if subprotocols else st.just(())
        return st.tuples(drawn, offered)

    def _address(self, parts: dict[str, str], query: dict[str, Any]) -> str:
        path = self.path.format_map({name: quote(text, "") for name, text in parts.items()})
        pairs = {
            name: [*map(_as_text, value)] if is_array(value) else _as_text(value)
            for name, value in query.items()
            if value is not None
        }
        return path + ("?" + urlencode(pairs, doseq=True) if pairs else "")

    @cache  # noqa: B019
    def messages(self, owner: str) -> Values:
        """Return a strategy for what a client says: JSON values, text or bytes."""
        values = OwnValues(owner, self.handler.default_serializer)
        if self._data is None or self._data.annotation is bytes:
            return values.of(str).map(str.encode if self._data else str)
        return values.of(self._data.raw)

    def frame(self, message: Any, ref: int) -> str | bytes:
        """Return a message as it is sent, with a `ref` where it may have one."""
        if isinstance(message, str | bytes) and (self._data is None or self._data.annotation in {str, bytes}):
            return message
        message = msgspec.to_builtins(message, enc_hook=self.handler.default_serializer)
        if isinstance(self.handler, ListenerRouteHandler) and is_object(message):
            message = {**message, "ref": ref}
        frame = msgspec.json.encode(message)
        return frame if frames_of(self.handler)[0] == "binary" else frame.decode()


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a JSON value is an array."""
    return isinstance(value, list)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
