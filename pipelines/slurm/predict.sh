#!/usr/bin/env bash
#SBATCH --job-name=wetmap-predict
#SBATCH --output=sample-wetmap/slurm/logs/predict-%A_%a.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4096M
#SBATCH --time=02:00:00
#
# wetmap, step predict: Maps the blocks of one shard.
# One element of the array is one of 4 shards: a run of the blocks.
# After: predict_plan.sh.
# It may be run again at any time: what is done is passed over.
#
# Here:     bash predict.sh 3   (the third shard)
# On Slurm: sbatch --array=1-4 predict.sh
set -euo pipefail

shard="${1:-${SLURM_ARRAY_TASK_ID:-}}"
if [[ ! "$shard" =~ ^[0-9]+$ ]]; then
  echo "Give the number of a shard, 1 to 4: bash predict.sh 3" >&2
  exit 2
fi
export OMP_NUM_THREADS=1
exec wetmap predict \
  --recipe pipelines/sample.yaml \
  --workspace sample-wetmap \
  --cluster local \
  --workers 1 \
  --memory 4096MiB \
  --shard "$shard/4"
