"""The states of a session."""

from enum import Enum, auto
from typing import Final


class State(Enum):
    """How far a session has come. It has a cause exactly where it is closing or closed."""

    CONNECTING = auto()
    """The handshake is not answered yet."""
    OPEN = auto()
    """The handshake was accepted; messages go both ways."""
    CLOSING = auto()
    """It is decided why it ends; its handler and its clean-up may still run."""
    CLOSED = auto()
    """Its clean-up is done."""


NEXT_STATES: Final = {
    State.CONNECTING: (State.OPEN, State.CLOSING),
    State.OPEN: (State.CLOSING,),
    State.CLOSING: (State.CLOSED,),
    State.CLOSED: (),
}
"""The transitions that there are."""
