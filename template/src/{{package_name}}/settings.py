"""The settings of the service, from the environment and from `.env`."""

from .realtime import RealtimeSettings


class Settings(RealtimeSettings):
    """Add your own settings here, each with a line in `.env.example`; or change the default of one that is there."""
