#!/usr/bin/env bash
#SBATCH --job-name=wetmap-plan
#SBATCH --output=sample-wetmap/slurm/logs/plan-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4096M
#SBATCH --time=02:00:00
#
# wetmap, step plan: Searches the imagery and settles what is settled once for the whole area:
# scenes, shifts, where water runs, and the list of blocks.
# It may be run again at any time: what is done is passed over.
#
# Here:     bash plan.sh
# On Slurm: sbatch plan.sh
set -euo pipefail

export OMP_NUM_THREADS=1
exec wetmap fetch \
  --recipe pipelines/sample.yaml \
  --workspace sample-wetmap \
  --cluster local \
  --workers 1 \
  --only plan
