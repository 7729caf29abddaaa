#!/usr/bin/env bash
# What docs/performance.md tells of one H200, in one command of some minutes there.
#
#     bash benchmarks/gpu.sh
#
# An environment with iwin comes first on the PATH. `pytest -m gpu tests/models` checks the kernels on the card.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
STATUS=0 # a variant that cannot be measured costs no other
iwin bench model iwin_tiny --preset h200 --out benchmarks/results --name iwin_tiny_32x224_infer_h200 \
  --variants reference-bf16 bf16 bf16-compiled bf16-cudagraphs || STATUS=1
iwin bench model iwin_tiny --preset h200-train --out benchmarks/results --name iwin_tiny_32x224_train_h200 \
  --variants reference-bf16 bf16 bf16-compiled bf16-checkpointed || STATUS=1
python benchmarks/write_tables.py || STATUS=1
exit "$STATUS"
