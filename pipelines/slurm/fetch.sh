#!/usr/bin/env bash
#SBATCH --job-name=wetmap-fetch
#SBATCH --output=sample-wetmap/slurm/logs/fetch-%A_%a.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4096M
#SBATCH --time=02:00:00
#
# wetmap, step fetch: Reads the imagery near the blocks of one shard and writes their features.
# Needs the network, unless the imagery lies on your own disk.
# One element of the array is one of 4 shards: a run of the blocks.
# After: plan.sh.
# It may be run again at any time: what is done is passed over.
#
# Here:     bash fetch.sh 3   (the third shard)
# On Slurm: sbatch --array=1-4 fetch.sh
set -euo pipefail

shard="${1:-${SLURM_ARRAY_TASK_ID:-}}"
if [[ ! "$shard" =~ ^[0-9]+$ ]]; then
  echo "Give the number of a shard, 1 to 4: bash fetch.sh 3" >&2
  exit 2
fi
export OMP_NUM_THREADS=1
exec wetmap fetch \
  --recipe pipelines/sample.yaml \
  --workspace sample-wetmap \
  --cluster local \
  --workers 1 \
  --shard "$shard/4"
