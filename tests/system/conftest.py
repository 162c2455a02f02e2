"""Programs that are no Python packages: a test of one skips where it is missing, or fails where it is required."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.slurm import Slurm, slurm_missing, started

#: The Python that distributions build QGIS for.
SYSTEM_PYTHON = Path("/usr/bin/python3")


def need(part: str, reason: str | None) -> None:
    """Skip, or fail where the environment variable WETMAP_REQUIRE names the part (comma-separated, or ``all``).

    Args:
        part: Name of the program.
        reason: Why it cannot be used; None where it can.
    """
    if reason is None:
        return
    wanted = {word.strip() for word in os.environ.get("WETMAP_REQUIRE", "").split(",")}
    if wanted & {part, "all"}:
        pytest.fail(f"{part} is required by WETMAP_REQUIRE, and {reason}", pytrace=False)
    pytest.skip(reason)


@functools.cache
def qgis_missing() -> str | None:
    """Why QGIS cannot be used here, or None."""
    if not SYSTEM_PYTHON.exists():
        return f"there is no {SYSTEM_PYTHON}"
    code = "from qgis.core import Qgis; print(Qgis.QGIS_VERSION)"
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    try:
        done = subprocess.run(
            [SYSTEM_PYTHON, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    except subprocess.TimeoutExpired:
        return "QGIS does not start within two minutes"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it gives no reason"])[-1]
        return f"{SYSTEM_PYTHON} cannot import QGIS ({last}); apt-get install python3-qgis qgis-providers"
    return None


@pytest.fixture(scope="session")
def qgis() -> Path:
    """The Python of QGIS."""
    need("qgis", qgis_missing())
    return SYSTEM_PYTHON


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A real Slurm of four virtual nodes on loopback, for all tests of the run; they share it and leave no jobs."""
    need("slurm", slurm_missing())
    with started() as running:
        yield running
