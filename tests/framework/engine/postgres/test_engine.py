"""The backend of the engine holds what every one has to."""

from my_service.realtime.fanout.engine.postgres import PostgresBackend

from ..conformance import EngineTests
from .server import Server


class TestPostgres(EngineTests):
    backend = PostgresBackend
    server = Server
