#!/usr/bin/env bash
# Make the project's own .venv, or bring it up to date; quick when nothing is to be done.
#   PYTHON=python3.12 scripts/setup.sh    chooses another interpreter (3.11 or newer)
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.graphforge-setup
wanted=$(cat pyproject.toml setup.cfg scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if [ ! -x .venv/bin/python ]; then
    python=${PYTHON:-}
    for candidate in python3.11 python3.12 python3.13 python3; do
        [ -n "$python" ] || ! command -v "$candidate" >/dev/null || python=$candidate
    done
    if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "setup: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python scripts/setup.sh" >&2
        exit 1
    fi
    echo "setup: making .venv with $("$python" --version)" >&2
    "$python" -m venv .venv
fi

# errors only: pip also warns of every place it looked at in vain
pip() { .venv/bin/python -m pip --disable-pip-version-check -qq "$@"; }
echo "setup: installing packages into .venv (some minutes the first time)" >&2
# torch first and alone: what follows then finds it there and pulls no other build of it
pip install "torch>=2.9,<2.14"
# the last three: what the tests, the demo and the benchmarks measure against or feed on
pip install --editable ".[dev,timm,transformers,onnxsim]" "onnxslim>=0.1.50" "scikit-image>=0.25" "requests>=2"
# without dependencies: both name a torch of their own (facenet-pytorch an old one), and torch is there already
pip install --no-deps "torchvision==0.28.*" "facenet-pytorch==2.6.0"
# a target more where its wheel exists (Linux and Windows); the tests that need it are skipped elsewhere
pip install "tensorrt-rtx-cu13>=1.7" || echo "setup: no tensorrt-rtx here; its tests will be skipped" >&2

echo "$wanted" >"$stamp"
