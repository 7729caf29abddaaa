#!/usr/bin/env bash
# Build the wheel, install it with its locked dependencies into a clean environment, and use it from elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/pip wheel --quiet --no-deps --wheel-dir "$work" .
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --require-hashes --requirement locks/run.txt
"$work/venv/bin/pip" install --quiet --no-deps "$work"/iwin-*.whl
cd "$work"
venv/bin/iwin --help >/dev/null
venv/bin/python -c 'import iwin; missing = [name for name in iwin.__all__ if not hasattr(iwin, name)]; assert not missing, missing'
venv/bin/iwin flops iwin_tiny
venv/bin/iwin config show iwin_tiny_patch244_window77_kinetics400_1k >/dev/null
echo "the wheel works: $(basename "$work"/iwin-*.whl)"
