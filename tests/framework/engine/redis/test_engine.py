"""The backend of the engine holds what every one has to."""

from my_service.realtime.fanout.engine.redis import RedisBackend

from ..conformance import EngineTests
from .server import Server


class TestRedis(EngineTests):
    backend = RedisBackend
    server = Server
