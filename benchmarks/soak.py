"""Nothing grows: `uv run python -m benchmarks.soak --seconds 3600` mixes all that clients do, and reads what is left.

Each minute it lets all clients go, waits until the service holds no socket, task or descriptor more than when it began,
and prints a line. It fails where one stays, or where the memory is larger in the end than after the first tenth.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.rendering import copy_of_the_template
from tests.service import MEBIBYTE, render_with_probe, running
from tests.test_soak import LIVELY, Reading, Soak

MINUTE = 60
ROOM = 8 * MEBIBYTE
"""What an allocator may keep for later; a leak of 100 bytes a connection is more than that within the hour."""


def soak(project: Path, seconds: float) -> None:
    with running(project, **LIVELY) as service:
        soak = Soak(service)
        began = monotonic()
        readings: list[Reading] = []
        sys.stdout.write("| minutes | connections | memory, MiB | descriptors | tasks |\n|---|---|---|---|---|\n")
        while (now := monotonic()) < began + seconds:
            while monotonic() < min(now + MINUTE, began + seconds):
                soak.act()
            reading = soak.wait_until_stable()
            readings.append(reading)
            sys.stdout.write(
                f"| {(monotonic() - began) / MINUTE:.0f} | {reading.cycles:,} | {reading.memory / MEBIBYTE:.1f} | "
                f"{reading.descriptors} | {reading.tasks} |\n"
            )
            sys.stdout.flush()
    warm = readings[len(readings) // 10]
    grown = readings[-1].memory - warm.memory
    each = grown / max(1, readings[-1].cycles - warm.cycles)
    sys.stdout.write(f"\nThe memory grew by {grown / MEBIBYTE:.1f} MiB, {each:.0f} bytes a connection.\n")
    if grown > ROOM:
        sys.exit("that is a leak")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        template = copy_of_the_template(Path(folder, "template"))
        soak(render_with_probe(template, Path(folder, "my-service")), seconds)


if __name__ == "__main__":
    main()
