"""Build the wheel of a rendered project in process, and import what is in it."""

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from zipfile import ZipFile

from hatchling.builders.wheel import WheelBuilder

from .forked import FORKS
from .rendering import answers_of

TIMEOUT = 60


def check_wheel(project: Path, folder: Path) -> None:
    """Build the wheel, assert that all of src/ is in it and nothing else, and build the application from it.

    Args:
        project: A rendered project.
        folder: An empty folder.
    """
    answers = answers_of(project)
    (wheel,) = WheelBuilder(str(project)).build(directory=str(folder), versions=["standard"])
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(folder / "installed")
    source = project / "src"
    files = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert names == {path.relative_to(source).as_posix() for path in files}
    process = FORKS.Process(
        target=_build_application,
        args=(folder, answers["project_slug"], answers["package_name"], answers["auth"] == "jwt"),
    )
    process.start()
    process.join(TIMEOUT)
    alive = process.is_alive()
    process.kill()
    assert not alive, "the application is still being built"
    assert process.exitcode == 0, (folder / "errors").read_text("utf-8")


def _build_application(folder: Path, slug: str, package: str, secret: bool) -> None:
    sys.stderr = (folder / "errors").open("w", buffering=1)
    os.chdir(folder)
    if secret:
        os.environ[f"{package.upper()}_AUTH_SECRET"] = "x" * 32
    sys.path.insert(0, str(folder / "installed"))
    (command,) = entry_points(group="console_scripts", name=slug)
    assert command.value == f"{package}.__main__:main"
    assert callable(command.load())
    import_module(f"{package}.app").create_app()
