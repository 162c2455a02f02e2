"""Processor time of training steps with and without ``keep_freed_memory``, each in a process of its own.

Prints one JSON object: seconds of processor time for the same steps, and the ratio with / without, median of three.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

STEPS = """
import resource, sys, torch
from wetmap import models
from wetmap.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
torch.manual_seed(1)
network = models.create("wetmapformer-window", 16, 9)
optimiser = torch.optim.AdamW(network.parameters())
x, y = torch.randn(256, 16, 8, 8), torch.randint(0, 9, (256,))
for step in range(12):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF)
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    optimiser.step()
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def seconds(mode: str) -> float:
    """Processor seconds of ten steps."""
    done = subprocess.run([sys.executable, "-c", STEPS, mode], check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    pairs = [(seconds("keep"), seconds("plain")) for _ in range(3)]
    keep, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(json.dumps({"keep_s": round(keep, 2), "plain_s": round(plain, 2), "ratio": round(ratio, 2)}))
