"""`uv run --group benchmarks python -m benchmarks [PART ...]`: measure, and write docs/speed.md."""

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from time import monotonic

from .parts import PARTS, SHORT, WHEN_NAMED, Plan
from .releases import last, record, worse
from .report import write, write_summary
from .rounds import tell


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure a service beside its peers.")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"any of: {', '.join(PARTS)} (default: all but {', '.join(WHEN_NAMED)}; of --short: {', '.join(SHORT)})",
    )
    parser.add_argument("--release", metavar="VERSION", help="record the ratios as those of this release, too")
    parser.add_argument("--short", action="store_true", help="few and short rounds, which are shown and not written")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="beside plain Litestar alone, shown and not written; fails where a ratio is worse than the last release's",
    )
    parser.add_argument(
        "--older",
        type=Path,
        metavar="CHECKOUT",
        help="another version of this template, measured in place of the other peers; shown and not written",
    )
    parser.add_argument("--idle", type=int, default=100_000, metavar="COUNT", help="connections of the part `idle`")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}")
    writes = not (options.short or options.older or options.compare)
    if options.release and not writes:
        parser.error("a release is recorded from all rounds, beside all peers")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        amounts = (2, 0.5, 500, 500, 2000) if options.short else (4, 0.7, 2000, 1000, 10_000)
        plan = Plan(Path(folder), *amounts, idle=options.idle, alone=options.compare, older=options.older)
        for name in options.parts or (SHORT if options.short else [part for part in PARTS if part not in WHEN_NAMED]):
            tell(f"{name}: {PARTS[name].__doc__}\n")
            began = monotonic()
            findings = PARTS[name](plan)
            if writes:
                write(name, findings)
            if options.release:
                record(options.release, findings.ratios)
                write_summary()
            if options.compare:
                failures += worse(findings.ratios, last())
            sys.stdout.write("\n".join([findings.table(), *map(str, findings.promises), "", ""]))
            sys.stdout.flush()
            tell(f"  {monotonic() - began:.0f} s\n")
    if failures:
        sys.exit("\n".join(["", *failures]))


if __name__ == "__main__":
    main()
