"""``python -m wetmap``, which is also how torchrun starts it."""

from __future__ import annotations

from wetmap.cli.main import main

if __name__ == "__main__":
    main()
