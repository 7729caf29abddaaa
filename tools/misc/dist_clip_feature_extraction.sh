#!/usr/bin/env bash
# Features with a process a GPU: bash tools/misc/dist_clip_feature_extraction.sh CONFIG CHECKPOINT GPUS [options]
set -euo pipefail
[[ ${3:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: bash $0 CONFIG CHECKPOINT GPUS [options]" >&2; exit 2; }
exec "${PYTHON:-python}" -m iwin.cli.torchrun --nproc-per-node="$3" --master-port="${PORT:-29500}" \
  --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" --master-addr="${MASTER_ADDR:-127.0.0.1}" \
  "$(dirname "$0")/clip_feature_extraction.py" "$1" "$2" --launcher pytorch "${@:4}"
