"""What the tests share: the template in a plain folder, and projects rendered from it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment
from playwright.sync_api import Browser, BrowserContext, Page

from .browser import MILLISECONDS, Network, chromium, network
from .engines import PostgresServer, started
from .history import History
from .npm import install
from .rendering import Renders, compile_package, copy_of_the_template, names
from .service import Service, Start, render_with_probe

collect_ignore = ["framework"]  # run inside a project, by test_framework.py


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as it stands in the working tree, without git."""
    return copy_of_the_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def renders(template: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Renders:
    """What is rendered, not to be changed."""
    folder = tmp_path_factory.getbasetemp()
    return Renders(template, folder if worker_id == "master" else folder.parent)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_compiled_twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have Jinja compile each text of the template, and mypy read each library, once for all projects."""
    compile_text, compiled = Environment.compile, dict[object, Any]()

    def compile_once(environment: Environment, source: object, *names: object) -> Any:
        key = (environment.lexer, source, *names)  # the lexer is one for all environments with the same syntax
        if key not in compiled:
            compiled[key] = compile_text(environment, source, *names)  # type: ignore[call-overload]
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "compile", compile_once)
        patch.setenv("MYPY_CACHE_DIR", str(tmp_path_factory.mktemp("mypy")))
        yield


@pytest.fixture(scope="session")
def default_project(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every answer left at its default; not to be changed."""
    project = Path(shutil.copytree(renders.of(), tmp_path_factory.mktemp("default") / "my-service"))
    compile_package(project)
    return project


@pytest.fixture(autouse=True)
def _what_is_shared_stays_as_it_is(request: pytest.FixtureRequest) -> Iterator[None]:
    def look() -> dict[Path, int]:
        return {name: name.stat().st_mtime_ns for project in shared for name in names(project)}

    fixtures = {"default_project", "probed"}.intersection(request.fixturenames)
    shared = [request.getfixturevalue(name) for name in fixtures]
    before = look()
    yield
    changed = sorted(str(name) for name, _ in before.items() ^ look().items())
    assert changed == [], (
        "a test has changed the project that all tests share; let it ask for `project`, which is a copy"
    )


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """The template in every version."""
    return History(tmp_path_factory.mktemp("history"))


@pytest.fixture
def project(renders: Renders, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(renders.of(), tmp_path / "my-service"))


@pytest.fixture
def rendered(renders: Renders, tmp_path: Path) -> Callable[..., Path]:
    """Render with some answers: `rendered(license="MIT")`. It is a copy, and may be changed."""

    def rendered(**answers: Any) -> Path:
        return Path(shutil.copytree(renders.of(**answers), tmp_path / "project"))

    return rendered


@pytest.fixture(scope="session")
def probed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with hooks and a listener that fail on demand; not to be changed."""
    return render_with_probe(template, tmp_path_factory.mktemp("probed") / "my-service")


@pytest.fixture
def start(probed: Path) -> Iterator[Start]:
    """Start it with some settings; it is stopped when the test ends."""
    with ExitStack() as stack:

        def start(*options: str, **settings: object) -> Service:
            service = Service(probed, *options, **settings)
            stack.callback(service.stop)
            return service

        yield start


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own."""
    with started(PostgresServer()) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one file: playwright's event loop must be gone before others run theirs."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile of the browser."""
    with browser.new_context() as context:
        context.set_default_timeout(MILLISECONDS)
        yield context


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core, which finds in a page what cannot be used by everybody."""
    return (install(tmp_path_factory.mktemp("axe"), "axe-core") / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def way(service: Service) -> Iterator[Network]:
    """The way from the browser to the service."""
    with network(service.address) as way:
        yield way


@pytest.fixture
def page(context: BrowserContext, way: Network) -> Page:
    """A document of the service that opens no connection by itself."""
    page = context.new_page()
    page.goto(f"http://{way.address}/page/style.css")
    return page
