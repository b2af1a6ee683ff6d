"""SignalR in Python, aiosignalr: a hub whose method streams."""

from collections.abc import AsyncGenerator

from aiosignalr.server import Hub, SignalRServer


class Streams(Hub):
    async def stream(self, length: int) -> AsyncGenerator[dict[str, str]]:
        for _ in range(length):
            yield {"type": "said", "text": "hello"}


app = SignalRServer(Streams).asgi_app(path="/ws/stream")
