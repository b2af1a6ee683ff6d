"""What the fan-out itself says to a client."""

from msgspec import Struct


class Gap(Struct, tag="gap"):
    """Messages of a channel did not reach this client: it was too slow, or the engine no longer has them.

    All that follows is whole again. `missed` is how many they are, where that is known.
    """

    channel: str
    missed: int | None = None
