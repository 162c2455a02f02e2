#!/usr/bin/env bash
# Submits the scripts beside it to Slurm, each after those that it needs. `wetmap submit` does the same, and
# leaves out what is done already. `wetmap status` shows how far it is.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p sample-wetmap/slurm/logs
plan="$(sbatch --parsable --kill-on-invalid-dep=yes "$here/plan.sh")"
echo "plan: job ${plan%%;*}"
fetch="$(sbatch --parsable --kill-on-invalid-dep=yes "--dependency=afterok:${plan%%;*}" --array=1-4 "$here/fetch.sh")"
echo "fetch: job ${fetch%%;*}"
fetch_finish="$(sbatch --parsable --kill-on-invalid-dep=yes "--dependency=afterok:${plan%%;*},afterany:${fetch%%;*}" "$here/fetch_finish.sh")"
echo "fetch_finish: job ${fetch_finish%%;*}"
train="$(sbatch --parsable --kill-on-invalid-dep=yes "--dependency=afterok:${fetch_finish%%;*}" "$here/train.sh")"
echo "train: job ${train%%;*}"
predict_plan="$(sbatch --parsable --kill-on-invalid-dep=yes "--dependency=afterok:${fetch_finish%%;*},afterok:${train%%;*}" "$here/predict_plan.sh")"
echo "predict_plan: job ${predict_plan%%;*}"
predict="$(sbatch --parsable --kill-on-invalid-dep=yes "--dependency=afterok:${predict_plan%%;*}" --array=1-4 "$here/predict.sh")"
echo "predict: job ${predict%%;*}"
map="$(sbatch --parsable --kill-on-invalid-dep=yes "--dependency=afterok:${predict_plan%%;*},afterany:${predict%%;*}" "$here/map.sh")"
echo "map: job ${map%%;*}"
