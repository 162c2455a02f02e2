#!/usr/bin/env bash
#SBATCH --job-name=wetmap-fetch_finish
#SBATCH --output=sample-wetmap/slurm/logs/fetch_finish-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4096M
#SBATCH --time=02:00:00
#
# wetmap, step fetch_finish: Closes the cube: tries blocks that failed once more, names those that
# fail again, and counts what was seen.
# After: plan.sh, fetch.sh.
# It may be run again at any time: what is done is passed over.
#
# Here:     bash fetch_finish.sh
# On Slurm: sbatch fetch_finish.sh
set -euo pipefail

export OMP_NUM_THREADS=1
exec wetmap fetch \
  --recipe pipelines/sample.yaml \
  --workspace sample-wetmap \
  --cluster local \
  --workers 1 \
  --only finish
