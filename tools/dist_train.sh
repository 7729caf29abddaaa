#!/usr/bin/env bash
# Train with a process a GPU: [PORT=29500] bash tools/dist_train.sh CONFIG GPUS [options of iwin train]
# Over several machines, on each: NNODES=2 NODE_RANK=0 MASTER_ADDR=<the first machine> bash tools/dist_train.sh …
set -euo pipefail
[[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: bash $0 CONFIG GPUS [options of iwin train]" >&2; exit 2; }
exec "${PYTHON:-python}" -m iwin.cli.torchrun --nproc-per-node="$2" --master-port="${PORT:-29500}" \
  --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" --master-addr="${MASTER_ADDR:-127.0.0.1}" \
  "$(dirname "$0")/train.py" "$1" --launcher pytorch --validate "${@:3}"
