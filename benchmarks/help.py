"""How long ``wetmap --help`` takes, as a whole process. Prints one JSON object: seconds, best and median of ten."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time


def once() -> float:
    """Seconds of one call, start of the interpreter included."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "from wetmap.cli.main import main; main()", "--help"]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    once()
    times = [once() for _ in range(10)]
    print(json.dumps({"best_s": round(min(times), 3), "median_s": round(statistics.median(times), 3)}))
