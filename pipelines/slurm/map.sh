#!/usr/bin/env bash
#SBATCH --job-name=wetmap-map
#SBATCH --output=sample-wetmap/slurm/logs/map-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4096M
#SBATCH --time=02:00:00
#
# wetmap, step map: Closes the map: maps the few blocks that failed once more, then
# post-processing, GeoTIFFs, the project for QGIS and the report.
# After: predict_plan.sh, predict.sh.
# It may be run again at any time: what is done is passed over.
#
# Here:     bash map.sh
# On Slurm: sbatch map.sh
set -euo pipefail

export OMP_NUM_THREADS=1
exec wetmap predict \
  --recipe pipelines/sample.yaml \
  --workspace sample-wetmap \
  --cluster local \
  --workers 1 \
  --memory 4096MiB \
  --only finish
