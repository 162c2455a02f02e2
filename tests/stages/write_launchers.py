"""Write the launchers of pipelines/slurm anew: ``python -m tests.stages.write_launchers``."""

from __future__ import annotations

from tests.stages.test_submit import ROOT, launch
from wetmap.stages.submit_scripts import STEPS, scripts


def main() -> None:
    folder = ROOT / "pipelines/slurm"
    folder.mkdir(exist_ok=True)
    for name, text in scripts(STEPS, launch()).items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    main()
