"""Real engines for the fan-out: Redis and PostgreSQL on free ports, to be killed, frozen and started again."""

import os
import pwd
import random
import re
import signal
import socket
import ssl
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shutil import chown, rmtree, which
from time import monotonic, sleep
from typing import Any, ClassVar, TypeVar, cast

import pytest
import trustme

TIMEOUT = 30


def free_port() -> int:
    """Return a port below those that the system gives to connections: it stays free while a server is restarted."""
    while True:
        port = random.randrange(10_000, 30_000)  # noqa: S311
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Certificates:
    """A certificate for servers on this machine, one for clients, and the authority of both, in files."""

    def __init__(self, name: str = "127.0.0.1") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="certificates-"))
        self.folder.chmod(0o755)
        authority = trustme.CA()
        self.authority = self.folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        self.server, self.client = self._issue(authority, name), self._issue(authority, "service")

    def _issue(self, authority: trustme.CA, name: str) -> tuple[Path, Path]:
        issued = authority.issue_cert(name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    def remove(self) -> None:
        rmtree(self.folder)


ServerT = TypeVar("ServerT", bound="EngineServer")


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


def begin(server: EngineServer) -> None:
    """Start a server; where its program is missing, a test is skipped, but not in CI."""
    if server.path() is None:
        missing = f"{server.program} is missing: apt-get install {server.package}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    server.start()


@contextmanager
def started(server: ServerT) -> Generator[ServerT]:
    """Begin, and remove the server at the end."""
    try:
        begin(server)
        yield server
    finally:
        server.remove()


class RedisServer(EngineServer):
    """A Redis; with certificates it speaks nothing but TLS, with clients that have one of their own."""

    program = "redis-server"
    package = "redis-server"

    def __init__(
        self, *, appends: bool = True, password: str = "", certificates: Certificates | None = None, primary: int = 0
    ) -> None:
        super().__init__()
        self.appends = appends
        self.password = password
        self.certificates = certificates
        self.primary = primary
        """The port of the server that it follows, or 0."""

    @property
    def url(self) -> str:
        return self.url_of(self)

    def url_of(self, *servers: EngineServer, path: str = "0", more: str = "") -> str:
        """Return the URL that names servers which are reached as this one is."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        account = f":{self.password}@" if self.password else ""
        if not self.certificates:
            return f"redis{more}://{account}{hosts}/{path}"
        certificate, key = self.certificates.client
        trust = f"ssl_ca_certs={self.certificates.authority}&ssl_certfile={certificate}&ssl_keyfile={key}"
        return f"rediss{more}://{account}{hosts}/{path}?{trust}"

    def client(self) -> Any:
        from redis import Redis

        return cast("Any", Redis).from_url(self.url)  # its types are partly unknown

    def options(self) -> dict[str, object]:
        """Return what stands on the command line."""
        options: dict[str, object] = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder}
        if self.certificates:
            certificate, key = self.certificates.server
            options |= {"port": 0, "tls-port": self.port, "tls-replication": "yes"}
            options |= {"tls-cert-file": certificate, "tls-key-file": key}
            options |= {"tls-ca-cert-file": self.certificates.authority}
        if self.password:
            options |= {"requirepass": self.password, "masterauth": self.password}
        if self.primary:
            options["replicaof"] = f"127.0.0.1 {self.primary}"
        # With `everysec`, a slow disk postpones writes that are answered already, and a kill loses them.
        return options | {"save": "", "appendonly": "yes" if self.appends else "no", "appendfsync": "no"}

    def command(self) -> list[str]:
        return [str(self.path()), *self.arguments()]

    def arguments(self) -> list[str]:
        given = self.options().items()
        return [part for name, value in given for part in (f"--{name}", *str(value).split(" "))]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                if not self.certificates:
                    connection.sendall(b"PING\r\n")
                    return connection.recv(5) in {b"+PONG", b"-NOAU"}
                context = ssl.create_default_context(cafile=str(self.certificates.authority))
                context.check_hostname = False
                context.load_cert_chain(*self.certificates.client)
                with context.wrap_socket(connection) as encrypted:
                    encrypted.sendall(b"PING\r\n")
                    return encrypted.recv(5) in {b"+PONG", b"-NOAU"}
        except OSError:
            return False


class SentinelServer(RedisServer):
    """A Sentinel, which watches a primary of Redis, and has its replica promoted when it is gone."""

    def __init__(self, primary: RedisServer, *, password: str = "") -> None:
        super().__init__(password=password, certificates=primary.certificates)
        self.watched = primary

    def prepare(self) -> None:
        lines = [
            f"sentinel monitor kitchen 127.0.0.1 {self.watched.port} 2",
            "sentinel down-after-milliseconds kitchen 500",
            "sentinel failover-timeout kitchen 3000",
        ]
        if self.watched.password:
            lines.append(f"sentinel auth-pass kitchen {self.watched.password}")
        if self.password:
            lines.append(f"sentinel sentinel-pass {self.password}")
        (self.folder / "sentinel.conf").write_text("\n".join(lines))

    def options(self) -> dict[str, object]:
        return {
            name: value
            for name, value in super().options().items()
            if name not in {"save", "appendonly", "appendfsync", "masterauth"}
        }

    def command(self) -> list[str]:
        return [str(self.path()), "sentinel.conf", "--sentinel", *self.arguments()]


class RedisSentinels(RedisServer):
    """A primary and its replica, with three Sentinels."""

    def __init__(self, *, password: str = "", certificates: Certificates | None = None) -> None:
        self.password, self.certificates = password, certificates
        primary = RedisServer(password=password, certificates=certificates)
        replica = RedisServer(password=password, certificates=certificates, primary=primary.port)
        self.servers = [primary, replica]
        self.sentinels = [SentinelServer(primary, password=password and "other") for _ in range(3)]

    @property
    def url(self) -> str:
        url = self.url_of(*self.sentinels, path="kitchen/0", more="+sentinel")
        return url + f"{'&' if '?' in url else '?'}sentinel_password=other" if self.password else url

    def start(self) -> None:
        for server in (*self.servers, *self.sentinels):
            server.start()
        for sentinel in self.sentinels:
            client = sentinel.client()
            wait_until(partial(self._knows_all, client), "a Sentinel does not know what it watches")

    @staticmethod
    def _knows_all(client: Any) -> bool:
        """Return whether a Sentinel knows the others, and the replica that it may promote."""
        replicas = client.sentinel_slaves("kitchen")
        others = client.sentinel_master("kitchen")["num-other-sentinels"]
        return others == 2 and [each["master-link-status"] for each in replicas] == ["ok"]

    def kill(self) -> None:
        """Kill the primary, whichever it is now."""
        self.primary_server.kill()

    @property
    def primary_server(self) -> RedisServer:
        _, port = self.sentinels[0].client().sentinel_get_master_addr_by_name("kitchen")
        [server] = [server for server in self.servers if server.port == port]
        return server

    def remove(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.remove()


class ClusterServer(RedisServer):
    """One of the servers of a cluster."""

    def options(self) -> dict[str, object]:
        options = {"cluster-enabled": "yes", "cluster-port": self.bus, "cluster-node-timeout": 1000}
        return super().options() | options | ({"tls-cluster": "yes"} if self.certificates else {})

    def prepare(self) -> None:
        self.bus = free_port()

    @property
    def slots(self) -> list[Any]:
        """Who has which, as it knows: first, last, the primary, and the replicas."""
        known: list[Any] = self.client().execute_command("CLUSTER SLOTS")
        return known


class RedisCluster(RedisServer):
    """Primaries, and a replica of each, or none."""

    def __init__(self, primaries: int = 3, *, replicas: bool = True, certificates: Certificates | None = None) -> None:
        self.certificates = certificates
        self.servers = [ClusterServer(certificates=certificates) for _ in range(primaries * (1 + replicas))]
        self.primaries, self.replicas = self.servers[:primaries], self.servers[primaries:]

    @property
    def url(self) -> str:
        """Names all servers, for each of them may be killed."""
        return self.servers[0].url_of(*self.servers)

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
        for epoch, server in enumerate(self.servers, 1):
            server.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)  # or they agree on them later
        share = SLOTS / len(self.primaries)
        for number, primary in enumerate(self.primaries):
            slots = round(number * share), round((number + 1) * share) - 1
            primary.client().execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        wait_until(self._has_met, DISORDER)
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            replica.client().cluster("REPLICATE", primary.client().cluster("MYID"))
        followed = 4 if self.replicas else 3
        wait_until(lambda: all(len(slots) == followed for server in self.servers for slots in server.slots), DISORDER)

    def _has_met(self) -> bool:
        """Return whether all servers know each other; the first meets those again whose handshake timed out."""
        names = [server.client().cluster("MYID").decode() for server in self.servers]
        known = [{node["node_id"] for node in server.client().cluster("NODES").values()} for server in self.servers]
        for name, server in zip(names, self.servers, strict=True):
            if name not in known[0]:
                self.servers[0].client().execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, server.bus)
        return all({*names} <= each for each in known)

    def wait_until_whole(self) -> None:
        """Wait until all servers that run agree that the cluster is in order, and each replica follows its primary."""

        def is_whole() -> bool:
            running = [server.client() for server in self.servers if server.runs]
            replicas = [client.info("replication") for client in running]
            return all(client.cluster("INFO")["cluster_state"] == "ok" for client in running) and all(
                each["role"] == "master" or each["master_link_status"] == "up" for each in replicas
            )

        wait_until(is_whole, DISORDER)

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
        target = next(server for server in self.primaries if server is not source)
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
        replica = self.replicas[self.primaries.index(primary)].client()
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


SLOTS = 16384
DISORDER = "the cluster is not in order"


def wait_until(happened: Callable[[], bool], complaint: str) -> None:
    deadline = monotonic() + TIMEOUT
    while not happened():
        assert monotonic() < deadline, complaint
        sleep(0.05)


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
    """A PostgreSQL; with certificates it refuses whoever does not speak TLS."""

    program = "postgres"
    package = "postgresql"

    def __init__(self, *, certificates: Certificates | None = None) -> None:
        super().__init__()
        self.certificates = certificates
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
        url = f"postgresql://service:secret@127.0.0.1:{self.port}/postgres"
        return f"{url}?sslmode=verify-full&sslrootcert={self.certificates.authority}" if self.certificates else url

    def prepare(self) -> None:
        initdb = Path(str(self.path())).with_name("initdb")
        password = self.folder / "password"
        password.write_text("secret")
        options = ["--pgdata=data", "--username=service", "--pwfile=password", "--auth=scram-sha-256", "--no-sync"]
        command = [str(initdb), *options, "--encoding=UTF8", "--no-locale"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, user=self.user, cwd=self.folder)
        if self.certificates:
            _, key = self.certificates.server
            key.chmod(0o600)
            if self.user:
                chown(key, self.user)
            access = self.folder / "data" / "pg_hba.conf"
            access.write_text(re.sub(r"^host\b", "hostssl", access.read_text(), flags=re.MULTILINE))

    def command(self) -> list[str]:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        if self.certificates:
            certificate, key = self.certificates.server
            options |= {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
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
