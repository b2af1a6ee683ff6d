"""`uv run --group benchmarks python -m benchmarks [PART ...] [--short]`: measure, and write docs/speed.md."""

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from time import monotonic

from .parts import PARTS, Plan
from .report import write
from .rounds import tell


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure a service beside its peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--short", action="store_true", help="few and short rounds, which are shown and not written")
    parser.add_argument(
        "--older",
        type=Path,
        metavar="CHECKOUT",
        help="another version of this template, measured in place of the other peers; shown and not written",
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        amounts = (2, 0.5, 500, 1000, 2000) if options.short else (5, 1.0, 2000, 1000, 10_000)
        plan = Plan(Path(folder), *amounts, older=options.older)
        for name in options.parts or PARTS:
            tell(f"{name}: {PARTS[name].__doc__}\n")
            began = monotonic()
            findings = PARTS[name](plan)
            if not (options.short or options.older):
                write(name, findings)
            sys.stdout.write("\n".join([findings.table(), *map(str, findings.promises), "", ""]))
            sys.stdout.flush()
            tell(f"  {monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
