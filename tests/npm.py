"""Packages of npm that some tests need, in their newest versions, as a developer installs them."""

import shutil
import subprocess
from pathlib import Path

from .browser import missing

NODE = 20
"""The oldest Node that dev servers and builds of today run on; what Debian has may be older."""


def require_node() -> None:
    """Skip a test where Node is older, or missing; in CI, fail."""
    node = shutil.which("node")
    version = (
        subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        if node
        else "v0"
    )
    if int(version[1:].partition(".")[0]) < NODE:
        missing(f"Node {NODE} or newer", f"nodejs, or where that is older: npm install -g node@{NODE}")


def install(folder: Path, *packages: str) -> Path:
    """Install packages into a folder; return its `node_modules`. What npm has in its cache is not fetched again."""
    if shutil.which("npm") is None:
        missing("npm", "npm")
    command = [
        "npm",
        "install",
        "--prefix",
        str(folder),
        "--prefer-offline",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]
    result = subprocess.run([*command, *packages], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "node_modules"
