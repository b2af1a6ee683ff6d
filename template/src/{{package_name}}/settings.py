"""Yours: the settings of the service, from the environment and from `.env`. `copier update` never touches this file."""

from .realtime import RealtimeSettings


class Settings(RealtimeSettings):
    """Add your own settings here, each with a line in `.env.example`; or change the default of one that is there."""
