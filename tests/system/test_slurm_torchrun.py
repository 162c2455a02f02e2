"""One training shared by two Slurm nodes: the same weights as by two processes of one machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.system.slurm import Slurm
from tests.walk.conftest import RECIPE, run_here, write_recipe

pytestmark = pytest.mark.system

#: As docs/how-to/several-gpus.md has it, but for the nodes: these are virtual, so all of them are found on loopback.
SCRIPT = """\
#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=1500M
#SBATCH --output={folder}/said.txt
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=lo
srun {python} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d \\
  --rdzv-endpoint 127.0.0.1:{port} --local-addr 127.0.0.1 -m wetmap train --recipe {folder}/recipe.yaml
"""


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "space/model/weights.safetensors").read_bytes()).hexdigest()


def test_two_nodes_train_the_same_weights_as_two_processes(tmp_path: Path, slurm: Slurm) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    training = {**RECIPE["training"], "epochs": 2}
    write_recipe(here, training={**training, "devices": 2})
    done = run_here(["fetch", "--recipe", str(here / "recipe.yaml")])
    assert done.returncode == 0, done.stderr
    shutil.copytree(here, there)
    write_recipe(there, training=training)
    done = run_here(["train", "--recipe", str(here / "recipe.yaml")])
    assert done.returncode == 0, done.stderr

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = there / "train.sh"
    script.write_text(SCRIPT.format(folder=there, python=sys.executable, port=port))
    said = slurm.run("sbatch", "--wait", "--parsable", script, expect=None)
    told = (there / "said.txt").read_text()
    facts = slurm.facts(said.strip())
    assert facts["ExitCode"] == "0:0", told
    assert facts["NumNodes"] == "2"
    assert weights(there) == weights(here)
    assert told.count("train: begins") == 1, "one process leads, and the other takes part"
    assert not slurm.jobs()
    assert os.environ.get("RANK") is None
