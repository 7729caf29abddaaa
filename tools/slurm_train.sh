#!/usr/bin/env bash
# Train under Slurm, a task a GPU: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of iwin train]
# From the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS.
set -euo pipefail
(($# >= 4)) || { echo "usage: bash $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of iwin train]" >&2; exit 2; }
GPUS=${GPUS:-8} && NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
# shellcheck disable=SC2086 - SRUN_ARGS holds several arguments
exec srun -p "$1" --job-name="$2" --gres=gpu:"$NODE" --ntasks="$GPUS" --ntasks-per-node="$NODE" ${SRUN_ARGS:-} \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 "${PYTHON:-python}" -u "$(dirname "$0")/train.py" \
  "$3" --work-dir="$4" --launcher=slurm "${@:5}"
