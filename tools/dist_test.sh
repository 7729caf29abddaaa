#!/usr/bin/env bash
# Test with a process a GPU: [PORT=29500] bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of iwin test]
# Over several machines, on each: NNODES=2 NODE_RANK=0 MASTER_ADDR=<the first machine> bash tools/dist_test.sh …
set -euo pipefail
[[ ${3:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: bash $0 CONFIG CHECKPOINT GPUS [options of iwin test]" >&2; exit 2; }
exec "${PYTHON:-python}" -m iwin.cli.torchrun --nproc-per-node="$3" --master-port="${PORT:-29500}" \
  --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" --master-addr="${MASTER_ADDR:-127.0.0.1}" \
  "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
