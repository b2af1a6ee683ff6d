"""An example of a message, the same each time: made of the examples that its fields give, else of made-up values."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from polyfactory.exceptions import FactoryException
from polyfactory.factories.msgspec_factory import MsgspecFactory
from polyfactory.field_meta import FieldMeta

NO_EXAMPLE: Final = (FactoryException, TypeError, ValueError, RecursionError)
"""The errors of a type of which polyfactory makes no example."""


class Examples(MsgspecFactory[msgspec.Struct]):
    """Makes examples of any type. A plain text is the name of its field, and a plain number is 1."""

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

    A field gives one of its own by `Annotated[str, Meta(examples=["hi"])]`.

    Args:
        kind: The type of the message.
        encode: Called with what msgspec cannot encode, as `enc_hook`.

    Returns:
        The example as decoded JSON, or `msgspec.UNSET` where none can be made.
    """
    holder = msgspec.defstruct("Holder", [("text", kind)])
    try:
        example = Examples.create_factory(holder).build()
        return msgspec.json.decode(msgspec.json.encode(example, enc_hook=encode))["text"]
    except NO_EXAMPLE:
        return msgspec.UNSET
