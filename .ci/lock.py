"""Write hashes.txt: what pip must find for every version that constraints.txt pins, whatever the platform.

    python .ci/lock.py            ask the Python Package Index and write the file
    python .ci/lock.py --check    only say whether it names the versions of constraints.txt, without the network

The index gives the hash of every file with its name, so that nothing is downloaded. Kept are source archives and the
wheels of the Pythons that wetmap runs on. PyTorch's builds without CUDA are of another index, and not
among them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PINS, LOCK = ROOT / "constraints.txt", ROOT / "hashes.txt"
INDEX = "https://pypi.org/simple/{}/"
JSON = "application/vnd.pypi.simple.v1+json"
#: Tags of wheels that Python 3.11 to 3.13 take.
PYTHONS = re.compile(r"-(py3|py2\.py3|py3\d+|cp311|cp312|cp313|cp3\d*-abi3)(\.py3\d*)*-")
HEAD = """\
# The hashes of all files of the versions that constraints.txt pins, for Python 3.11 to 3.13 on any platform.
# Written by .ci/lock.py from the Python Package Index; docs/explanation/security.md says how to install with it.
"""


def pins() -> dict[str, str]:
    """Versions by normalised name, from constraints.txt."""
    found = {}
    for row in PINS.read_text(encoding="utf-8").splitlines():
        requirement = row.partition("#")[0].strip()
        if requirement:
            name, _, version = requirement.partition(";")[0].strip().partition("==")
            found[normal(name)] = version.strip()
    return found


def normal(name: str) -> str:
    """A package's name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def files_of(name: str) -> list[dict[str, Any]]:
    """All files of a package, as the index lists them."""
    request = urllib.request.Request(INDEX.format(name), headers={"Accept": JSON})  # noqa: S310 - https, above
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return list(json.load(answer)["files"])


def hashes_of(name: str, version: str) -> list[str]:
    """Hashes of the files of a version that may be installed.

    Raises:
        SystemExit: The index has none.
    """
    kept = {row["hashes"]["sha256"] for row in files_of(name) if fits(row["filename"], name, version)}
    if not kept:
        raise SystemExit(f"{name} {version}: the index lists no file that fits.")
    return sorted(kept)


def fits(filename: str, name: str, version: str) -> bool:
    """Whether a file is of this version, and a source archive or a wheel for a Python that wetmap runs on."""
    if filename.endswith(".whl"):
        parts = filename.split("-")
        return normal(parts[0]) == name and parts[1] == version and bool(PYTHONS.search(filename))
    stem = filename.removesuffix(".tar.gz").removesuffix(".zip")
    found, _, number = stem.rpartition("-")
    return normal(found) == name and number == version


def locked() -> dict[str, str]:
    """Versions by name, from hashes.txt."""
    rows = LOCK.read_text(encoding="utf-8").splitlines()
    return dict(row.removesuffix(" \\").split("==") for row in rows if "==" in row)


def check() -> None:
    """Compare both files.

    Raises:
        SystemExit: They name other versions.
    """
    apart = sorted(name for name, _ in set(pins().items()) ^ set(locked().items()))
    if apart:
        raise SystemExit(f"hashes.txt and constraints.txt differ: {', '.join(apart)}. Run python .ci/lock.py.")


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, ask nobody")
    if parser.parse_args().check:
        check()
        return
    wanted = pins()
    text = HEAD
    for number, (name, version) in enumerate(sorted(wanted.items()), 1):
        sys.stderr.write(f"\r{number} of {len(wanted)}: {name:40}")
        rows = [f"{name}=={version}", *(f"    --hash=sha256:{one}" for one in hashes_of(name, version))]
        text += " \\\n".join(rows) + "\n"
    sys.stderr.write("\n")
    LOCK.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
