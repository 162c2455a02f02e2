"""A process that has imported this ends a second sooner.

At its end Python looks through all that is still there for circles to free, and with the libraries for maps loaded that
takes a second, also in the process that workers are made from. The system frees that memory anyhow.
"""

from __future__ import annotations

import atexit
import gc

atexit.register(gc.freeze)
