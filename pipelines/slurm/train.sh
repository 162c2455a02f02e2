#!/usr/bin/env bash
#SBATCH --job-name=wetmap-train
#SBATCH --output=sample-wetmap/slurm/logs/train-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4096M
#SBATCH --time=02:00:00
#
# wetmap, step train: Draws samples from the reference data, trains the model and scores it on
# held-out ground.
# After: fetch_finish.sh.
# It may be run again at any time: what is done is passed over.
#
# Here:     bash train.sh
# On Slurm: sbatch train.sh
set -euo pipefail

export OMP_NUM_THREADS=1
exec wetmap train \
  --recipe pipelines/sample.yaml \
  --workspace sample-wetmap \
  --cluster local \
  --workers 1
