"""Yours: the messages of clients and service. `copier update` never touches this file.

Each message is a Struct with a tag, which travels as its `type`. A handler that takes `data: Say | Wave` is called with
one or the other; anything else is answered with an error, and the handler never sees it.
"""

from msgspec import Struct


class Say(Struct, tag="say"):
    """A client says something."""

    text: str


class Said(Struct, tag="said"):
    """The echo of what a connection has said, and how often it has."""

    text: str
    connection: str
    count: int


class SaidInRoom(Struct, tag="said"):
    """Somebody in the room said something."""

    room: str
    text: str
    connection: str


class Joined(Struct, tag="joined"):
    """Somebody joined the room."""

    room: str
    connection: str


class Left(Struct, tag="left"):
    """Somebody left the room."""

    room: str
    connection: str
