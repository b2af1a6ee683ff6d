"""What channels are called: those of rooms, of users and of nodes, which no name crosses.

A room has its own name. The others begin with NUL, and a room whose name does so has one more in front.
"""

from typing import Final

from litestar.exceptions import ClientException

MAX_NAME_BYTES: Final = 255
"""Bytes of UTF-8 in the name of a room or a user; it often comes from a URL, so from untrusted clients."""

_NODES: Final = "\0node:"
_USERS: Final = "\0user:"


def room_channel(name: str) -> str:
    """Return the channel of a room.

    Raises:
        ClientException: The name is too long, or not UTF-8.
    """
    check_name(name, "the name of a channel")
    return f"\0{name}" if name.startswith("\0") else name


def user_channel(user: str) -> str:
    """Return the channel of a user.

    Raises:
        ClientException: The name is too long, or not UTF-8.
    """
    check_name(user, "the name of a user")
    return _USERS + user


def node_channel(name: str) -> str:
    """Return a channel over which the nodes of the service talk to each other."""
    return _NODES + name


def is_node_channel(channel: str) -> bool:
    """Return whether a channel is one of the nodes."""
    return channel.startswith(_NODES)


def is_room(channel: str) -> bool:
    """Return whether a channel is that of a room."""
    return not channel.startswith((_NODES, _USERS))


def display_name(channel: str) -> str:
    """Return what a client is told of a channel: the name of the room, or `user:` and the name of the user."""
    return channel.removeprefix("\0")


def check_name(name: str, what: str) -> None:
    """Check the name of a room or a user.

    Raises:
        ClientException: It is too long, or not UTF-8.
    """
    try:
        too_long = len(name.encode()) > MAX_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        raise ClientException(detail=f"{what} is not UTF-8") from None
    if too_long:
        raise ClientException(detail=f"{what} has at most {MAX_NAME_BYTES} bytes")
