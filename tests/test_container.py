"""The Dockerfile, without a Docker engine: its steps are run by hand, and the result answers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

UV = [sys.executable, "-m", "uv"]


def test_the_steps_of_the_dockerfile_give_a_service(rendered: Callable[..., Path], tmp_path: Path) -> None:
    project = rendered(docker=True)
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
    program = build / ".venv" / "bin" / json.loads(command)[0]
    result = subprocess.run([program, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    assert "--port" in result.stdout
