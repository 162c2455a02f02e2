#!/usr/bin/env bash
#SBATCH --job-name=wetmap-predict_plan
#SBATCH --output=sample-wetmap/slurm/logs/predict_plan-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4096M
#SBATCH --time=02:00:00
#
# wetmap, step predict_plan: Settles what the map is made with: device, precision, size of blocks,
# operating point. It must run where predict.sh will: a map that is begun on a GPU goes on on
# GPUs.
# After: fetch_finish.sh, train.sh.
# It may be run again at any time: what is done is passed over.
#
# Here:     bash predict_plan.sh
# On Slurm: sbatch predict_plan.sh
set -euo pipefail

export OMP_NUM_THREADS=1
exec wetmap predict \
  --recipe pipelines/sample.yaml \
  --workspace sample-wetmap \
  --cluster local \
  --workers 1 \
  --memory 4096MiB \
  --only plan
