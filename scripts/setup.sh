#!/usr/bin/env bash
# Make the project's own .venv with the versions that scripts/requirements.lock names; quick when nothing is to be done.
#   PYTHON=python3.12 scripts/setup.sh    chooses another interpreter (3.11 or newer; the lock is for one of them)
#   scripts/setup.sh --newest FOLDER      makes FOLDER anew, with the newest of everything inside pyproject's ranges
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

lock=scripts/requirements.lock              # every file of every package by its hash
torch_lock=scripts/requirements-torch.lock  # versions alone: these come in a build of their own for each machine
locked_for=$(sed -n 's/^# locked for Python //p' "$lock")

case ${1:-} in
    "") folder=.venv newest= ;;
    --newest) folder=${2:?"setup: --newest needs the folder to make"} newest=yes ;;
    *)
        say "unknown option '$1', expected nothing or --newest FOLDER"
        exit 2
        ;;
esac

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
is_locked_for() { [ "$(version_of "$1")" = "$locked_for" ]; }
warn_of_ranges() {
    say "the lock is for Python $locked_for and $folder has $(version_of "$folder/bin/python"), so versions are not" \
        "locked there: the newest inside pyproject's ranges; 'rm -r $folder' and PYTHON=python$locked_for $0 use the lock"
}

stamp=$folder/.graphforge-setup
wanted=$(cat pyproject.toml setup.cfg scripts/setup.sh "$lock" "$torch_lock" | sha256sum | cut -d' ' -f1)
if [ -z "$newest" ] && [ -x "$folder/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    is_locked_for "$folder/bin/python" || warn_of_ranges
    exit 0
fi

if [ -n "$newest" ] && [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
    say "'$folder' is there and is not an environment, so it is not replaced; name another folder"
    exit 1
fi
if [ -n "$newest" ] || [ ! -x "$folder/bin/python" ]; then
    python=${PYTHON:-}
    can_run() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
    for candidate in "python$locked_for" python3.11 python3.12 python3.13 python3; do
        [ -n "$python" ] || ! can_run "$candidate" || python=$candidate
    done
    if [ -z "$python" ] || ! can_run "$python"; then
        say "Python 3.11 or newer is needed; name one with PYTHON=/path/to/python $0"
        exit 1
    fi
    say "making $folder with $("$python" --version)"
    "$python" -m venv ${newest:+--clear} "$folder"
fi

# errors only: pip also warns of every place it looked at in vain
pip() { "$folder/bin/python" -m pip --disable-pip-version-check -qq "$@"; }
extras="dev,timm,transformers,onnxsim,video"
# a target more where its wheel exists (Linux and Windows); the tests that need it are skipped elsewhere
install_tensorrt() { pip install "$@" || say "no tensorrt-rtx here; its tests will be skipped"; }

install_locked() {
    # without dependencies: the lock names them all, and torch, which has no hash, is not to be looked for here
    # (facenet-pytorch names an old torch and numpy, works with these, and pip would warn of it at every step)
    pip install --no-deps --require-hashes --requirement "$lock" &&
        pip install --no-warn-conflicts --constraint "$torch_lock" torch &&
        pip install --no-deps --constraint "$torch_lock" torchvision &&
        # all that this asks for is there, save what another platform needs beyond the lock's
        pip install --no-warn-conflicts --no-build-isolation --editable ".[$extras]" &&
        install_tensorrt --constraint "$torch_lock" tensorrt-rtx-cu13
}

install_newest() {
    # torch first and alone: what follows then finds it there and pulls no other build of it
    pip install "$("$folder/bin/python" scripts/lockfile.py range torch)"
    pip install --editable ".[$extras]"
    # without dependencies: both name a torch of their own (facenet-pytorch an old one), and torch is there already;
    # torchvision 0.N belongs to torch 2.(N-15)
    local minor
    minor=$("$folder/bin/python" -c 'import torch; print(torch.__version__.split(".")[1])')
    pip install --no-deps "torchvision==0.$((minor + 15)).*" "facenet-pytorch==2.6.0"
    # without its telemetry, which starts threads whenever it is imported
    pip install --no-deps "$("$folder/bin/python" scripts/lockfile.py range openvino)"
    install_tensorrt "tensorrt-rtx-cu13>=1.7"
}

if [ -n "$newest" ]; then
    say "installing the newest packages into $folder (some minutes)"
    install_newest
elif is_locked_for "$folder/bin/python"; then
    say "installing the locked packages into $folder (some minutes the first time)"
    if ! install_locked; then
        say "the locked packages cannot be installed here, see above; where this machine has no file of a locked version," \
            "'scripts/setup.sh --newest FOLDER' tries the newest inside pyproject's ranges"
        exit 1
    fi
else
    warn_of_ranges
    say "installing packages into $folder (some minutes the first time)"
    install_newest
fi

echo "$wanted" >"$stamp"
