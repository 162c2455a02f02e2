"""Coverage-guided fuzzing of the parsers: ``make fuzz`` runs each for WETMAP_FUZZ_SECONDS, 60 by default.

    python -m tests.fuzz.atheris_parsers recipe 60

It needs atheris (``pip install wetmap[fuzz]``; Linux). What it finds it writes to a ``crash-...`` file in a folder of
its own, whose path it prints; each finding becomes a plain test beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
#: Parsers by name, and the parts of wetmap whose branches guide the search.
PARSERS = {
    "recipe": ("recipe", ("wetmap.recipe_file", "wetmap.yaml_text", "yaml")),
    "area": ("area", ("wetmap.geo.aoi", "wetmap.geo.grid")),
    "item": ("item_text", ("wetmap.sources.stac_item", "wetmap.sources.offset", "wetmap.sources.outlines")),
    "card": ("card", ("wetmap.bundle", "wetmap.model_card", "wetmap.classes")),
    "s3": ("s3", ("wetmap.sources.s3_text", "configparser")),
}


def seeds(name: str, folder: Path) -> None:
    """Files to start from."""
    texts: dict[str, list[bytes]] = {
        "recipe": [path.read_bytes() for path in sorted((REPO / "pipelines").glob("*.yaml"))],
        "area": [
            path.read_bytes() for path in sorted((REPO / "aoi").rglob("*.geojson")) if path.stat().st_size < 20_000
        ],
        "s3": [b"bucket/a/catalog.json\nhost:9000\n[default]\naws_access_key_id = A\naws_secret_access_key = B\n"],
        "card": [b'{"format_version": 1, "model": "forest", "bands": [], "layers": [], "classes": [], "window": 1}'],
    }
    if name == "item":
        from tests.fakes import tiny_archive

        with tempfile.TemporaryDirectory() as scratch:
            texts["item"] = [json.dumps(item).encode() for item in tiny_archive.write_files(Path(scratch))]
    for number, data in enumerate(texts[name]):
        (folder / f"seed-{number}").write_bytes(data)


def run(name: str, seconds: int) -> None:
    """Fuzz one parser; the process ends with it."""
    import atheris

    function, modules = PARSERS[name]
    scratch = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    corpus, work = scratch / "corpus", scratch / "work"
    corpus.mkdir()
    work.mkdir()
    with atheris.instrument_imports(include=list(modules)):
        from tests.fuzz import parsers
    seeds(name, corpus)
    parse: Callable[[bytes, Path], object] = getattr(parsers, function)
    longest = max(path.stat().st_size for path in corpus.iterdir())
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={max(4096, longest)}",
        f"-artifact_prefix={scratch}/",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    os.chdir(work)

    def once(data: bytes) -> None:  # atheris takes any answer but none for a fault
        parse(data, work)

    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


def main() -> int:
    """One parser, or each in a process of its own; 1 where one of them found something."""
    if len(sys.argv) > 1:
        run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
        return 0
    seconds = os.environ.get("WETMAP_FUZZ_SECONDS", "60")
    found = []
    for name in PARSERS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.atheris_parsers", name, seconds], cwd=REPO, check=False
        )
        found += [name] if done.returncode else []
    sys.stderr.write(f"fuzzed {', '.join(PARSERS)}: {'findings in ' + ', '.join(found) if found else 'no findings'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
