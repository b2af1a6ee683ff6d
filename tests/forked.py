"""pytest in a process that is forked from one which has imported already what every service is made of.

To import it takes longer than most of the runs; nothing of a rendered project is among it.
"""

import os
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIGABRT
from threading import Timer

import pytest

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "pytest",  # where each fork looks for the main module
        "hypothesis.stateful",
        "litestar.testing",
        "litestar_asyncapi",
        "polyfactory.factories.msgspec_factory",
        "prometheus_client",
        "pydantic_settings",
        "structlog",
        "uvicorn",
        "websockets.sync.client",
        "tests.forked",
    ]
)


def run_pytest(project: Path, *options: str, environment: dict[str, str], timeout: float) -> tuple[int, str]:
    """Run pytest in a project, as `python -m pytest` does.

    Args:
        project: The folder to run in.
        options: Those of pytest.
        environment: All environment variables.
        timeout: Seconds after which it is killed; pytest writes then where each of its threads is.

    Returns:
        The exit status, below 0 where it was killed, and what it has written.
    """
    reading, writing = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_run, args=(project, options, environment, writing))
    with reading, writing:
        process.start()
        output = os.fdopen(os.dup(reading.fileno()), encoding="utf-8")
    limit = Timer(timeout, os.kill, [process.pid, SIGABRT])
    limit.start()
    with output:
        written = output.read()
    process.join()
    limit.cancel()
    return process.exitcode or 0, written


def _run(project: Path, options: tuple[str, ...], environment: dict[str, str], output: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(project)
    sys.path[:0] = [str(project), *environment["PYTHONPATH"].split(os.pathsep)]
    sys.dont_write_bytecode = True
    for standard in (1, 2):
        os.dup2(output.fileno(), standard)
    # faker is a plugin of pytest, and polyfactory has imported it.
    sys.exit(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *options]))
