"""The Dockerfile, without a Docker engine: its steps are run by hand, and the result answers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .cases import params

UV = [sys.executable, "-m", "uv"]


@pytest.mark.parametrize("fanout", params(["memory", "redis", "postgres"], {"postgres"}))
def test_the_steps_of_the_dockerfile_give_a_service(rendered: Callable[..., Path], tmp_path: Path, fanout: str) -> None:
    project = rendered(docker=True, fanout=fanout)
    dockerfile = (project / "Dockerfile").read_text()
    build = tmp_path / "service"
    build.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    subprocess.run([*UV, "lock", "--quiet"], cwd=project, env=environment, check=True, timeout=120)
    for instruction, arguments in re.findall(r"^(COPY|RUN) (.*)$", dockerfile.split("\nFROM ")[1], re.MULTILINE):
        if instruction == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                copy = shutil.copytree if (project / source).is_dir() else shutil.copy
                copy(project / source, build / target / (source if target == "./" else ""))
        elif arguments.startswith("uv "):
            step = [*UV, *arguments.split()[1:], "--quiet"]
            subprocess.run(step, cwd=build, env=environment, check=True, timeout=240)
    shutil.rmtree(build / "src")  # the second stage has the virtual environment alone
    [command] = re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)
    programs = build / ".venv" / "bin"
    given = yaml.safe_load((project / "compose.yaml").read_text())["services"]["service"]["environment"]
    for step in (
        [f"{programs}/{json.loads(command)[0]}", "--help"],
        # The names and values of compose.yaml are taken, and the driver of the engine is there.
        [f"{programs}/python", "-c", "from my_service.app import create_app; create_app()"],
    ):
        result = subprocess.run(step, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
