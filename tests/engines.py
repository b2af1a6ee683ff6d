"""Real engines for the fan-out: Redis and PostgreSQL on free ports, to be killed, frozen and started again."""

import os
import pwd
import random
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import chown, rmtree, which
from time import monotonic, sleep
from typing import Any, ClassVar, cast

TIMEOUT = 30


def free_port() -> int:
    """Return a port below those that the system gives to connections: it stays free while a server is restarted."""
    while True:
        port = random.randrange(10_000, 30_000)  # noqa: S311
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class EngineServer(ABC):
    """A server process with a folder of its own; it keeps its data from one start to the next."""

    program: ClassVar[str]
    package: ClassVar[str]
    user: str | None = None

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.program}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def path(cls) -> str | None:
        """Where its program is, or None."""
        return which(cls.program)

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    def prepare(self) -> None:  # noqa: B027  only one needs it
        """Make what the first start needs."""

    def start(self) -> None:
        """Start, and wait until it lets somebody in."""
        if self.process is None:
            self.prepare()
        deadline = monotonic() + TIMEOUT
        while True:
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    self.command(), stdout=log, stderr=log, start_new_session=True, user=self.user, cwd=self.folder
                )
            while self.process.poll() is None:
                if self.answers():
                    return
                assert monotonic() < deadline, (self.folder / "log").read_text()
                sleep(0.02)
            # What was killed may hold its memory or its port for another moment.
            assert monotonic() < deadline, (self.folder / "log").read_text()

    @abstractmethod
    def answers(self) -> bool: ...

    def _processes(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def signal(self, number: int) -> None:
        """Signal it and all its children; those of PostgreSQL are in process groups of their own."""
        for each in self._processes():
            with suppress(ProcessLookupError):
                os.kill(each, number)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def memory(self) -> int:
        """Bytes of it and all its children that are resident, those that they share counted once for each."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._processes())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(timeout=TIMEOUT)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def remove(self) -> None:
        if self.runs:
            self.kill()
        rmtree(self.folder, ignore_errors=True)


class RedisServer(EngineServer):
    program = "redis-server"
    package = "redis-server"

    def __init__(self, *, appends: bool = True, password: str = "") -> None:
        super().__init__()
        self.appends = appends
        self.password = password

    @property
    def url(self) -> str:
        return (
            f"redis://:{self.password}@127.0.0.1:{self.port}/0" if self.password else f"redis://127.0.0.1:{self.port}/0"
        )

    def command(self) -> list[str]:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "daemonize": "no"}
        options |= {"appendonly": "yes" if self.appends else "no"}
        options |= {"requirepass": self.password} if self.password else {}
        return [str(self.path()), *[str(part) for name, value in options.items() for part in (f"--{name}", value)]]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) in {b"+PONG", b"-NOAU"}
        except OSError:
            return False


class ClusterServer(RedisServer):
    """One of the servers of a cluster."""

    def command(self) -> list[str]:
        options = {"cluster-enabled": "yes", "cluster-port": self.bus, "cluster-node-timeout": 1000}
        return [*super().command(), *[str(part) for name, value in options.items() for part in (f"--{name}", value)]]

    def prepare(self) -> None:
        self.bus = free_port()

    def client(self) -> Any:
        from redis import Redis

        return cast("Any", Redis).from_url(self.url)  # its types are partly unknown

    @property
    def slots(self) -> list[Any]:
        """Who has which, as it knows: first, last, the primary, and the replicas."""
        known: list[Any] = self.client().execute_command("CLUSTER SLOTS")
        return known


class RedisCluster(RedisServer):
    """Three primaries, and a replica of each."""

    def __init__(self) -> None:
        self.servers = [ClusterServer() for _ in range(6)]

    @property
    def url(self) -> str:
        """Names all servers, for each of them may be killed."""
        return f"redis://{','.join(f'127.0.0.1:{server.port}' for server in self.servers)}/0"

    @property
    def memory(self) -> int:
        return sum(server.memory for server in self.servers)

    def start(self) -> None:
        new = self.servers[0].process is None
        for server in self.servers:
            server.start()
        if new:
            self._form()
        self.wait_until_whole()

    def _form(self) -> None:
        first, *others = self.servers
        for server in others:
            server.client().execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus)
        for slots, primary in zip(SLOTS, self.servers[:3], strict=True):
            primary.client().execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        self._wait(lambda: all(len(server.client().cluster("NODES")) == 6 for server in self.servers))
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            replica.client().cluster("REPLICATE", primary.client().cluster("MYID"))
        self._wait(lambda: all(len(slots) == 4 for server in self.servers for slots in server.slots))

    def wait_until_whole(self) -> None:
        """Wait until all servers that run agree that the cluster is in order, and each replica follows its primary."""

        def is_whole() -> bool:
            running = [server.client() for server in self.servers if server.runs]
            replicas = [client.info("replication") for client in running]
            return all(client.cluster("INFO")["cluster_state"] == "ok" for client in running) and all(
                each["role"] == "master" or each["master_link_status"] == "up" for each in replicas
            )

        self._wait(is_whole)

    def primary_of(self, key: str) -> ClusterServer:
        """Return the server that has the slot of a key."""
        from redis.crc import key_slot

        slots = next(server.slots for server in self.servers if server.runs)
        [port] = [primary[1] for first, last, primary, *_ in slots if first <= key_slot(key.encode()) <= last]
        return next(server for server in self.servers if server.port == port)

    def move_slot_of(self, key: str) -> None:
        """Move the slot of a key to another primary, key by key."""
        from redis.crc import key_slot

        slot, source = key_slot(key.encode()), self.primary_of(key)
        target = next(server for server in self.servers[:3] if server is not source)
        old, new = source.client(), target.client()
        target_name = new.cluster("MYID")
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old.cluster("MYID"))
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_name)
        while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for client in (new, old):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_name)

    def cut_off_replica_of(self, primary: ClusterServer) -> None:
        """Have its first replica lose the connection to it, and be refused when it connects again."""
        replica = self.servers[self.servers.index(primary) + 3].client()
        replica.config_set("masteruser", "nobody")
        replica.config_set("masterauth", "wrong")
        primary.client().execute_command("CLIENT", "KILL", "TYPE", "replica")

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def freeze(self) -> None:
        for server in self.servers:
            server.freeze()

    def thaw(self) -> None:
        for server in self.servers:
            server.thaw()

    def remove(self) -> None:
        for server in self.servers:
            server.remove()

    @staticmethod
    def _wait(happened: Callable[[], bool]) -> None:
        deadline = monotonic() + TIMEOUT
        while not happened():
            assert monotonic() < deadline, "the cluster is not in order"
            sleep(0.05)


SLOTS = [(0, 5460), (5461, 10922), (10923, 16383)]


class Pooler(EngineServer):
    """A pgbouncer in transaction mode in front of a PostgreSQL."""

    program = "pgbouncer"
    package = "pgbouncer"

    def __init__(self, server: "PostgresServer") -> None:
        super().__init__()
        self.server = server
        self.user = server.user
        if self.user:
            chown(self.folder, self.user)

    @property
    def url(self) -> str:
        return self.server.url.replace(str(self.server.port), str(self.port))

    def prepare(self) -> None:
        database = f"host=127.0.0.1 port={self.server.port} user=service password=secret"
        options = {"listen_addr": "127.0.0.1", "listen_port": self.port, "auth_type": "any", "pool_mode": "transaction"}
        lines = ["[databases]", f"postgres = {database}", "[pgbouncer]", "unix_socket_dir ="]
        lines += [f"{name} = {value}" for name, value in options.items()]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines))

    def command(self) -> list[str]:
        return [str(self.path()), "pgbouncer.ini"]

    def answers(self) -> bool:
        return self.server.answers_at(self.url)


class PostgresServer(EngineServer):
    program = "postgres"
    package = "postgresql"

    def __init__(self) -> None:
        super().__init__()
        if os.getuid() == 0:  # it refuses to run as root
            self.user = "postgres"
            pwd.getpwnam(self.user)
            chown(self.folder, self.user)

    @classmethod
    def path(cls) -> str | None:
        # Debian keeps its programs out of the way, one folder for each version.
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        return str(found[-1]) if found else which("postgres")

    @property
    def url(self) -> str:
        return f"postgresql://service:secret@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        initdb = Path(str(self.path())).with_name("initdb")
        password = self.folder / "password"
        password.write_text("secret")
        options = ["--pgdata=data", "--username=service", "--pwfile=password", "--auth=scram-sha-256", "--no-sync"]
        command = [str(initdb), *options, "--encoding=UTF8", "--no-locale"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, user=self.user, cwd=self.folder)

    def command(self) -> list[str]:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        return [str(self.path()), "-D", "data", *[f"--{name}={value}" for name, value in options.items()]]

    def answers(self) -> bool:
        return self.answers_at(self.url)

    @staticmethod
    def answers_at(url: str) -> bool:
        import psycopg

        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class PostgresReplica(PostgresServer):
    """A copy of a PostgreSQL that follows it.

    Args:
        port: Where it reaches the other.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._primary_port = port

    def prepare(self) -> None:
        program = Path(str(self.path())).with_name("pg_basebackup")
        primary = f"host=127.0.0.1 port={self._primary_port} user=service password=secret"
        options = ["--pgdata=data", "--write-recovery-conf", "--no-sync", "--checkpoint=fast", f"--dbname={primary}"]
        command = [str(program), *options]
        subprocess.run(command, check=True, capture_output=True, timeout=60, user=self.user, cwd=self.folder)

    def promote(self) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as client:
            client.execute("SELECT pg_promote()")
