"""The files with which a service is deployed: valid, in agreement with each other, and nothing left over."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cases import params
from .engines import PostgresServer
from .rendering import HOSTILE, check, replace, run
from .service import running

Rendered = Callable[..., Path]

ENGINES = ["memory", "redis", "postgres"]
NAMES: dict[str, dict[str, Any]] = {
    "usual": {},
    "hostile": HOSTILE | {"auth": "jwt"},
    "a boolean": {"project_name": "On", "demo_page": False},
    "a number": {"project_name": "1", "auth": "jwt"},
    "an engine": {"project_name": "Postgres"},
}
each_engine = pytest.mark.parametrize("fanout", ENGINES)
each_name = pytest.mark.parametrize("answers", params(NAMES, {"usual", "hostile"}))
SECONDS = re.compile(r"(\d+)s")


def compose_of(project: Path) -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((project / "compose.yaml").read_text())
    return compose


def kubernetes_of(project: Path) -> dict[str, Any]:
    """Read the example: each object by its kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((project / "deploy/kubernetes.yaml").read_text())}


def settings_of(project: Path) -> dict[str, str]:
    """Read the settings of a rendered project and their defaults, by their whole names."""
    lines = (project / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]", line))


def number(project: Path, setting: str) -> float:
    [value] = [value for name, value in settings_of(project).items() if name.endswith(f"_{setting}")]
    return float(value)


def drain(project: Path) -> float:
    """The longest that a service needs after SIGTERM."""
    return number(project, "DRAIN_SECONDS") + number(project, "GRACE_SECONDS") + 4 * number(project, "HOOK_SECONDS")


def grace(service: dict[str, Any]) -> int:
    seconds = SECONDS.fullmatch(service["stop_grace_period"])
    assert seconds
    return int(seconds[1])


def directive(project: Path, file: str, name: str) -> str:
    """Return the value of a directive of nginx, which must be there once."""
    [value] = re.findall(rf"^ *{name} ([^;]+);", (project / "deploy/nginx" / file).read_text(), re.MULTILINE)
    return str(value)


@each_name
@each_engine
def test_compose_is_valid(rendered: Rendered, fanout: str, answers: dict[str, Any]) -> None:
    project = rendered(docker=True, fanout=fanout, **answers)
    check(project, "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


@each_name
@pytest.mark.parametrize("fanout", ENGINES[1:])
def test_the_example_for_kubernetes_is_valid(rendered: Rendered, fanout: str, answers: dict[str, Any]) -> None:
    project = rendered(docker=True, fanout=fanout, **answers)
    check(project, "kubernetes_validate", "--strict", "deploy/kubernetes.yaml")
    kinds = kubernetes_of(project)
    assert set(kinds) == {"Deployment", "PodDisruptionBudget", "Service", "Ingress"}
    for each in kinds.values():
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", each["metadata"]["name"])  # RFC 1035


def test_the_validators_do_see_a_mistake(rendered: Rendered) -> None:
    project = rendered(docker=True, fanout="redis")
    replace(project / "compose.yaml", "stop_grace_period", "stop_grace")
    replace(project / "deploy/kubernetes.yaml", "terminationGracePeriodSeconds", "terminationGraceSeconds")
    assert run(project, "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml").returncode
    assert run(project, "kubernetes_validate", "--strict", "deploy/kubernetes.yaml").returncode


@each_engine
def test_each_engine_brings_what_it_needs_and_no_other(rendered: Rendered, fanout: str) -> None:
    project = rendered(docker=True, fanout=fanout)
    compose = compose_of(project)
    assert set(compose["services"]) == {"nginx", "service"} | {fanout} - {"memory"}
    service = compose["services"]["service"]
    if fanout == "memory":
        assert not {"deploy", "depends_on", "networks"} & service.keys(), "one replica, and no engine"
        assert not {"volumes", "networks"} & compose.keys()
        assert not (project / "deploy/kubernetes.yaml").exists()
    else:
        engine = compose["services"][fanout]
        assert service["deploy"]["replicas"] > 1
        assert service["depends_on"] == {fanout: {"condition": "service_healthy"}}
        assert engine["healthcheck"]
        assert [volume.split(":")[0] for volume in engine["volumes"]] == list(compose["volumes"]) == [fanout]
        assert engine["networks"] == ["engine"]
        assert compose["networks"]["engine"]["internal"]
        assert f"//{fanout}:" in service["environment"]["MY_SERVICE_FANOUT_URL"].replace("service@", "")
    assert [name for name, each in compose["services"].items() if "ports" in each] == ["nginx"]
    texts = [
        file.read_text() for file in (project / "compose.yaml", *(project / "deploy").rglob("*")) if file.is_file()
    ]
    others = [engine for engine in ("redis", "postgres") if engine != fanout]
    assert not [word for word in others if word in "".join(texts).lower()]


def test_without_docker_nothing_of_it_is_there(rendered: Rendered) -> None:
    project = rendered(docker=False, fanout="redis")
    text = "".join(file.read_text() for file in project.rglob("*") if file.is_file()).lower()
    assert not [word for word in ("kubernetes", "ingress", "deploy/") if word in text]
    assert not (project / "deploy").exists()


@pytest.mark.parametrize("auth", ["none", "jwt"])
@each_engine
def test_a_secret_that_is_missing_has_an_error_of_its_own(rendered: Rendered, fanout: str, auth: str) -> None:
    project = rendered(docker=True, fanout=fanout, auth=auth)
    secrets = re.findall(
        r"\$\{(\w+):\?([^}]+), see (?:the |deploy/)README(?:\.md)?}", (project / "compose.yaml").read_text()
    )
    wanted = {"PGPASSWORD"} if fanout == "postgres" else set()
    wanted |= {"MY_SERVICE_AUTH_SECRET"} if auth == "jwt" else set()
    assert {name for name, _ in secrets} == wanted
    told = (project / "README.md").read_text() + (project / "deploy" / "README.md").read_text()
    for name in wanted:
        assert f"print('{name}='" in told, "one of them says how to make it"


def test_the_password_of_postgresql_comes_by_its_own_variable(
    rendered: Rendered, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = rendered(docker=True, fanout="postgres")
    assert "@" in compose_of(project)["services"]["service"]["environment"]["MY_SERVICE_FANOUT_URL"]
    monkeypatch.setenv("PGPASSWORD", "secret")
    with running(project, fanout_url=postgres.url.replace(":secret@", "@")) as service:
        service.wait_for("engine available")


@each_name
@each_engine
def test_each_variable_is_a_setting(rendered: Rendered, fanout: str, answers: dict[str, Any]) -> None:
    project = rendered(docker=True, fanout=fanout, **answers)
    names = set(compose_of(project)["services"]["service"]["environment"]) - {"PGPASSWORD"}
    assert names <= settings_of(project).keys()
    if fanout != "memory":
        pod = kubernetes_of(project)["Deployment"]["spec"]["template"]["spec"]
        assert {each["name"] for each in pod["containers"][0]["env"]} <= settings_of(project).keys()
        assert pod["enableServiceLinks"] is False, "Kubernetes sets <NAME>_PORT for each Service, and it is no port"
        secret = pod["containers"][0]["envFrom"][0]["secretRef"]["name"]
        assert f"kubectl create secret generic {secret} " in (project / "deploy" / "README.md").read_text()


def test_a_stop_has_more_time_than_the_drain(rendered: Rendered) -> None:
    project = rendered(docker=True, fanout="redis")
    services = compose_of(project)["services"]
    assert grace(services["service"]) > drain(project)
    assert grace(services["nginx"]) > grace(services["service"]), "it carries the 1012 of each connection"
    assert "depends_on" not in services["nginx"], "it would be stopped first"
    pod = kubernetes_of(project)["Deployment"]["spec"]["template"]["spec"]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleep + grace(services["service"])


def test_what_stands_in_front_bears_a_longer_silence_than_that_between_pings(rendered: Rendered) -> None:
    project = rendered(docker=True, fanout="redis")
    interval = number(project, "PING_INTERVAL")
    seconds = SECONDS.fullmatch(directive(project, "nginx.conf", "proxy_read_timeout"))
    assert seconds
    annotations = kubernetes_of(project)["Ingress"]["metadata"]["annotations"]
    timeouts = [float(value) for name, value in annotations.items() if name.endswith("-timeout")]
    assert len(timeouts) == 2
    assert min(float(seconds[1]), *timeouts) >= 2 * interval
    for file in ("nginx/nginx.conf", "kubernetes.yaml"):
        assert f"PING_INTERVAL ({interval:.0f})" in (project / "deploy" / file).read_text()


def test_a_worker_of_nginx_carries_a_replica_that_is_full(rendered: Rendered) -> None:
    project = rendered(docker=True, fanout="redis")
    connections = int(directive(project, "nginx.conf", "worker_connections"))
    assert connections > 2 * number(project, "MAX_CONNECTIONS")
    assert int(directive(project, "nginx.conf", "worker_rlimit_nofile")) > connections


def test_the_ports_are_those_that_are_listened_on(rendered: Rendered) -> None:
    project = rendered(docker=True, fanout="redis")
    port = f"{number(project, 'PORT'):.0f}"
    assert f"EXPOSE {port}\n" in (project / "Dockerfile").read_text()
    assert directive(project, "upstream.conf", "server").startswith(f"service:{port} ")
    nginx = compose_of(project)["services"]["nginx"]
    assert nginx["ports"] == [f"127.0.0.1:8000:{directive(project, 'listen.conf', 'listen').split()[0]}"]
    assert nginx["volumes"] == ["./deploy/nginx:/etc/nginx:ro"]
    kinds = kubernetes_of(project)
    container = kinds["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"name": "http", "containerPort": int(port)}]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert (
        {probe["port"] for probe in probes.values()} == {"http"} == {kinds["Service"]["spec"]["ports"][0]["targetPort"]}
    )
    assert [probe["path"] for probe in probes.values()] == ["/health", "/health", "/ready"]


@pytest.mark.parametrize("page", [True, False])
@pytest.mark.parametrize("auth", ["none", "jwt"])
def test_the_ingress_shows_what_is_public(rendered: Rendered, auth: str, page: bool) -> None:
    project = rendered(docker=True, fanout="redis", auth=auth, demo_page=page)
    [rule] = kubernetes_of(project)["Ingress"]["spec"]["rules"]
    paths = {path["path"] for path in rule["http"]["paths"]}
    wanted = {"/ws", "/asyncapi", "/schema"} | ({"/", "/page"} if page else set())
    assert paths == wanted | ({"/logout"} if auth == "jwt" else set())


def test_all_objects_of_kubernetes_mean_the_same_pods(rendered: Rendered) -> None:
    kinds = kubernetes_of(rendered(docker=True, fanout="postgres", project_name="1"))
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": "service-1"}
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["Service"]["spec"]["selector"] == labels
    [path, *_] = kinds["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {"name": "service-1", "port": {"name": "http"}}
