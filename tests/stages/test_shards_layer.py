"""The map and the layer of the area of applicability in shards: the bytes of one go."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.stages.test_applicability_stage import folder as folder  # noqa: PLC0414 - a fixture
from tests.stages.test_applicability_stage import open_context
from wetmap.errors import WorkspaceError
from wetmap.ledger import Ledger
from wetmap.stages import applicability, chain, predict, status
from wetmap.stages.shards import Shard


def products(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "space/map").iterdir())}


def test_map_and_layer_in_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applicability, "BLOCK_PX", 64)
    shutil.copytree(folder, folder / "copy")
    chain.predict(open_context(folder / "copy"))
    context = open_context(folder)
    with pytest.raises(WorkspaceError, match="wetmap predict --only plan first"):
        chain.predict(replace(context, shard=Shard(1, 2)))
    chain.predict(replace(context, only="plan"))
    for number in (2, 1):
        chain.predict(replace(context, shard=Shard(number, 2)))
        made = Ledger(applicability.folder_of(context).path / "ledger").settled()
        assert len(made) == (3 if number == 2 else 6)
    rows = {row.name: row for row in status.status(context.workspace, own_model=False)}
    assert (rows["applicability"].done, rows["applicability"].left, rows["applicability"].state) == (6, 0, "begun")
    assert not applicability.folder_of(context).complete
    assert not predict.folder_of(context).complete
    chain.predict(replace(context, only="finish"))
    assert products(folder) == products(folder / "copy")
