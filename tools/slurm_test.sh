#!/usr/bin/env bash
# Test under Slurm, a task a GPU: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of iwin test]
# From the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS.
set -euo pipefail
(($# >= 4)) || { echo "usage: bash $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of iwin test]" >&2; exit 2; }
GPUS=${GPUS:-8} && NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
# shellcheck disable=SC2086 - SRUN_ARGS holds several arguments
exec srun -p "$1" --job-name="$2" --gres=gpu:"$NODE" --ntasks="$GPUS" --ntasks-per-node="$NODE" ${SRUN_ARGS:-} \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 "${PYTHON:-python}" -u "$(dirname "$0")/test.py" \
  "$3" "$4" --launcher=slurm "${@:5}"
