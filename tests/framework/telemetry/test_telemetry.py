"""OpenTelemetry. Nothing of it without the setting, one clear line without its packages."""

import subprocess
import sys

import pytest

from my_service.realtime.command import main
from my_service.realtime.settings import PREFIX

LOOK = """
import sys
from my_service.app import create_app
from my_service.settings import Settings
from my_service.realtime.observability.telemetry import telemetry

assert telemetry(Settings()) == []
loaded = {name for name in sys.modules if name.startswith("opentelemetry")}
assert not loaded, loaded
create_app()
# Litestar itself looks for the instrumentation, and so loads it where it is installed; all that does something is this.
loaded = {name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))}
assert not loaded, loaded
"""


def test_without_the_setting_nothing_is_imported() -> None:
    result = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr


def test_without_its_packages_it_is_one_line_that_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)  # as if it were not installed
    monkeypatch.setenv(f"{PREFIX}OPENTELEMETRY", "true")
    assert main(["--port", "0"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{PREFIX}OPENTELEMETRY: " in line
    assert line.endswith("install what it needs with `uv sync --extra opentelemetry`")
