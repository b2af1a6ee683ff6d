"""nginx with the configuration that a rendered project ships; only what depends on the place is replaced."""

import shutil
import socket
from pathlib import Path
from shutil import which
from time import monotonic, sleep

import yaml

from .engines import TIMEOUT, EngineServer
from .rendering import replace

REPLICA = "    server service:8000 resolve max_fails=0;\n"
RESOLVER = "resolver 127.0.0.11 valid=2s ipv6=off;\n"


class Nginx(EngineServer):
    """It is started as in compose.yaml, in front of some addresses.

    Args:
        project: Rendered with `docker=True`.
        addresses: What stands for the replicas, as host:port.
    """

    program = "nginx"
    package = "nginx-light"
    scheme = "ws"

    def __init__(self, project: Path, *addresses: str) -> None:
        super().__init__()
        self.folder.chmod(0o755)  # its workers are another user where it is started by root
        self.configuration = Path(shutil.copytree(project / "deploy/nginx", self.folder / "etc"))
        compose = yaml.safe_load((project / "compose.yaml").read_text())
        self._command: list[str] = compose["services"]["nginx"]["command"]
        replace(self.configuration / "listen.conf", "listen 8080 ", f"listen 127.0.0.1:{self.port} ")
        # It comes from another address than the service's own, as from another container.
        with (self.configuration / "listen.conf").open("a") as listen:
            listen.write("proxy_bind 127.0.0.9;\n")
        # Docker's DNS, and an nginx that is newer than some distributions have.
        replace(self.configuration / "upstream.conf", RESOLVER, "")
        replicas = [REPLICA.replace("service:8000 resolve", address) for address in addresses]
        replace(self.configuration / "upstream.conf", REPLICA, "".join(replicas))

    @classmethod
    def path(cls) -> str | None:
        return which(cls.program) or which(cls.program, path="/usr/sbin")

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        places = {"nginx": str(self.path()), "/tmp": str(self.folder)}  # noqa: S108
        return [places.get(part, part.replace("/etc/nginx", str(self.configuration))) for part in self._command]

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def uncomment(self, *starts: str) -> None:
        """Add the lines of listen.conf that its comments recommend, each found by how it begins."""
        for start in starts:
            replace(self.configuration / "listen.conf", f"# {start}", start)

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait until so many lines with this text are in what it prints, and return the last of them."""
        deadline = monotonic() + TIMEOUT
        while True:
            lines = (self.folder / "log").read_text().splitlines()
            found = [line for line in lines if text in line]
            if len(found) >= times:
                return found[-1]
            assert monotonic() < deadline, f"{text!r} is not in {lines}"
            sleep(0.02)
