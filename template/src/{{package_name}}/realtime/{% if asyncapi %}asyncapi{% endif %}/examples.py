"""An example of a message, the same each time: of its own examples where it gives some, else made up."""

from collections.abc import Callable
from typing import Any

import msgspec
from polyfactory.exceptions import FactoryException
from polyfactory.factories.msgspec_factory import MsgspecFactory
from polyfactory.field_meta import FieldMeta

IMPOSSIBLE = (FactoryException, TypeError, ValueError, RecursionError)
"""What comes of a type of which nothing can be made up."""


class Examples(MsgspecFactory[msgspec.Struct]):
    """What polyfactory makes of a type; but any text will do for a text, and then it is the name of its field."""

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
    """Make an example of a message, as it stands in JSON, or return `UNSET` where none can be made up.

    A field gives one of its own by `Annotated[str, Meta(examples=["hi"])]`.
    """
    holder = msgspec.defstruct("Holder", [("text", kind)])
    try:
        example = Examples.create_factory(holder).build()
        return msgspec.json.decode(msgspec.json.encode(example, enc_hook=encode))["text"]
    except IMPOSSIBLE:
        return msgspec.UNSET
