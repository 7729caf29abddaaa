#!/usr/bin/env bash
# What docs/performance.md tells of one H200, in one command of about four minutes there.
#
#     bash benchmarks/gpu.sh
#
# An environment with iwin comes first on the PATH. `pytest -m gpu tests/models` checks the kernels on the card.
set -euo pipefail
cd "$(dirname "$0")/.."
iwin bench model iwin_tiny --preset h200 --out benchmarks/results --name iwin_tiny_32x224_infer_h200 \
  --variants reference-bf16 bf16 bf16-compiled bf16-cudagraphs
iwin bench model iwin_tiny --preset h200-train --out benchmarks/results --name iwin_tiny_32x224_train_h200 \
  --variants reference-bf16 bf16 bf16-compiled bf16-checkpointed
python benchmarks/write_tables.py
