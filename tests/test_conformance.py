"""The wire is that of RFC 6455 and RFC 7692: Autobahn's cases, and what they leave out, against the running service.

The cases are the files of the Autobahn test suite itself; `kosoku` runs them on a Python of today. What the parser of
`websockets` does and Autobahn does not ask for stands in a table, in which no answer may change by accident either.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .service import MEBIBYTE, Service, running

LIMIT = 16 * MEBIBYTE
"""The largest message of the cases."""

UNFUSSY = ("NON-STRICT", "OK")
OPEN = ("INFORMATIONAL", "INFORMATIONAL")
KNOWN = {
    # One segment brings a good message and a bad frame: that the first is not answered is allowed.
    **dict.fromkeys(["3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"], UNFUSSY),
    # UTF-8 is checked when the message is whole; that may be done sooner.
    **dict.fromkeys(["6.4.1", "6.4.2", "6.4.3", "6.4.4"], UNFUSSY),
    # The RFC leaves it open.
    **dict.fromkeys(["7.1.6", "7.13.1", "7.13.2"], OPEN),
    # A close inside a fragmented message: `websockets` answers 1002, Autobahn wants the close sent back.
    "7.1.5": ("FAILED", "WRONG CODE"),
}
"""What the cases say that are not simply content, of the messages and of the close; of uvicorn's own protocol too."""

SHORT = ["1", "11"]  # of the 18 cases of each kind, which differ in size: 16 bytes, and 8192 in fragments
CASES = {
    "text": ("/probe/text", False, ["1.1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]),
    "binary": ("/probe/bytes", False, ["1.2.*"]),
    "large text": ("/probe/text", False, ["9.1.*", "9.3.*", "9.5.*", "9.7.*"]),
    "large binary": ("/probe/bytes", False, ["9.2.*", "9.4.*", "9.6.*", "9.8.*"]),
    "plain text where deflate is on": ("/probe/text", True, ["1.1.*", "2.*", "3.*", "4.*", "5.*", "6.2.*", "7.*"]),
    "deflated text": ("/probe/text", True, [f"{kind}.{size}" for kind in ("12.1", "12.4") for size in SHORT]),
    "deflated binary": ("/probe/bytes", True, [f"12.2.{size}" for size in SHORT]),
    "ways to deflate": ("/probe/text", True, [f"13.{way}.{size}" for way in range(1, 8) for size in SHORT]),
}


@pytest.fixture(scope="module")
def services(probed: Path) -> Iterator[dict[bool, Service]]:
    """One that compresses nothing, and one with deflate."""
    with (
        running(probed, max_message_size=LIMIT, max_connections=0) as plain,
        running(probed, max_message_size=LIMIT, max_connections=0, deflate=True) as deflating,
    ):
        yield {False: plain, True: deflating}


@pytest.mark.parametrize(("path", "deflate", "cases"), CASES.values(), ids=CASES)
def test_autobahn_is_content(
    services: dict[bool, Service], tmp_path: Path, path: str, deflate: bool, cases: list[str]
) -> None:
    service = services[deflate]
    command = [str(Path(sys.executable).with_name("kosoku")), service.url(path), "-p", "4", "-o", str(tmp_path)]
    chosen = [argument for case in cases for argument in ("-i", case)]
    subprocess.run([*command, *chosen], cwd=tmp_path, capture_output=True, timeout=240, check=False)
    (results,) = json.loads((tmp_path / "index.json").read_text()).values()
    verdicts = {case: (result["behavior"], result["behaviorClose"]) for case, result in results.items()}
    assert len(verdicts) >= len(cases)
    otherwise = {case: verdict for case, verdict in verdicts.items() if verdict != ("OK", "OK")}
    assert otherwise == {case: verdict for case, verdict in KNOWN.items() if case in verdicts}
    service.look()  # reads the log
    assert service.complaints == []
