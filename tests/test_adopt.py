"""docs/adopt.md, followed to the letter in a small Litestar project that knew nothing of the template."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from .rendering import ROOT
from .service import TIMEOUT

COPY, APP, LISTENER, MAIN, PROVE = re.findall(
    r"```(?:sh|python)\n(.*?)```", (ROOT / "docs" / "adopt.md").read_text(), re.DOTALL
)

SHELF = '''\
"""What the shop had."""

from litestar import get


@get("/shelf")
async def shelf() -> list[str]:
    return ["bread"]
'''


@pytest.fixture
def shop(template: Path, tmp_path: Path) -> Path:
    """The project after steps 1 to 3. What it depends on is installed already; only its own metadata is missing."""
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "shop.py").write_text(SHELF)
    metadata = tmp_path / "src" / "shop-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: shop\nVersion: 0.1.0\n")
    steps = [
        line.replace("uvx copier", f"{sys.executable} -m copier") for line in COPY.splitlines() if "uv add" not in line
    ]
    subprocess.run(
        ["bash", "-ec", "\n".join(steps)],
        cwd=tmp_path,
        env=os.environ | {"TEMPLATE": str(template)},
        check=True,
        timeout=TIMEOUT,
    )
    for name, text in {"app.py": APP, "shouts.py": LISTENER, "__main__.py": MAIN}.items():
        (package / name).write_text(text)
    return tmp_path


def test_it_works_in_a_service_that_exists(shop: Path) -> None:
    settings = {"SHOP_PORT": "0", "SHOP_LOG_FORMAT": "json", "SHOP_DRAIN_SECONDS": "0", "PYTHONPATH": "src"}
    command = [sys.executable, "-m", "shop"]
    with subprocess.Popen(command, cwd=shop, env=os.environ | settings, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = json.loads(process.stderr.readline())["event"].rpartition("/")[2]
            with connect(f"ws://{address}/ws/shout") as client:
                client.send('{"type": "shout", "text": "hi"}')
                assert json.loads(client.recv(timeout=TIMEOUT)) == {"type": "shout", "text": "HI"}
                client.send("rubbish")
                assert json.loads(client.recv(timeout=TIMEOUT))["code"] == "invalid_message"
                with pytest.raises(InvalidStatus, match="403"):
                    connect(f"ws://{address}/ws/shout", origin=Origin("https://elsewhere.example"))
                with urlopen(f"http://{address}/shelf", timeout=TIMEOUT) as answer:
                    assert json.load(answer) == ["bread"]
                process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(timeout=TIMEOUT)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert process.wait(timeout=TIMEOUT) == 0
        finally:
            process.kill()


def test_the_proofs_find_the_handlers_of_the_service(shop: Path) -> None:
    copy = [line for line in PROVE.splitlines() if not line.startswith("uv add")]
    subprocess.run(["bash", "-ec", "\n".join(copy)], cwd=shop, check=True, timeout=TIMEOUT)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests"],
        cwd=shop,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name} | {"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        timeout=6 * TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "/ws/shout: " in result.stdout
    assert "2 passed" in result.stdout


def test_a_mistake_in_what_the_service_had_cannot_start(shop: Path) -> None:
    (shop / "src/shop/shop.py").write_text(
        SHELF.replace("import get\n", "import WebSocket, get, websocket_listener\n")
        + "\n\nasync def wrong(socket: WebSocket) -> None: ...\n"
        + '\n\n@websocket_listener("/old", connection_lifespan=wrong)\nasync def old(data: str) -> None: ...\n'
    )
    app = shop / "src/shop/app.py"
    app.write_text(app.read_text().replace("import shelf\n", "import old, shelf\n").replace("[shelf,", "[shelf, old,"))
    result = subprocess.run(
        [sys.executable, "-c", "from shop.app import create_app; create_app()"],
        cwd=shop,
        env=os.environ | {"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert "ConfigurationError: wrong (src/shop/shop.py, line " in result.stderr
