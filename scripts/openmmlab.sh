#!/usr/bin/env bash
# Make .venv-openmmlab: MMPose, MMDetection and MMSegmentation beside what .venv holds, for the model specs mmpose:, mmdet:
# and mmseg:.
# torch, numpy and onnx are .venv's own, found through a line in a .pth file, so that nothing large is installed twice;
# nothing of this is needed by GraphForge itself.  A minute, and quick when nothing is to be done.
#   scripts/openmmlab.sh              makes it, and .venv before it
#   scripts/openmmlab.sh graphforge compile mmpose:rtmpose-t_8xb256-420e_coco-256x192     runs a command there
set -euo pipefail
start=$PWD
cd "$(dirname "$0")/.."

say() { echo "openmmlab: $*" >&2; }

# mmdet 3.3.0 refuses mmcv 2.2; the lite build of mmcv has no compiled operators, and GraphForge stands in for them.
# onedl-mmengine is the maintained mmengine.  All run on numpy 2.4 and torch 2.13.
packages="onedl-mmengine==0.10.12 mmcv-lite==2.1.0 mmdet==3.3.0 mmpose==1.3.2 mmsegmentation==1.2.2"
# what these import, and .venv may lack
beside="addict==2.4.0 termcolor==3.3.0 yapf==0.43.0 opencv-python-headless==5.0.0.93 munkres==3.0.0 json-tricks==3.17.3
    terminaltables==3.1.10 shapely==2.2.0 matplotlib==3.11.2 contourpy==1.3.3 cycler==0.12.1 fonttools==4.68.0
    kiwisolver==1.5.1 pyparsing==3.3.3 six==1.17.0 tqdm>=4 platformdirs>=4 ftfy==6.3.1
    wcwidth>=0.2"
# its wheel is built for numpy 1, so it is built here, which takes Python's headers and a C compiler
xtcocotools="xtcocotools==1.14.3"

[ -n "${ENVIRONMENT:-}" ] || scripts/setup.sh
main=$(cd "${ENVIRONMENT:-.venv}" && pwd -P)
folder=.venv-openmmlab
stamp=$folder/.graphforge-setup
wanted=$(echo "$main" | cat - scripts/openmmlab.sh scripts/requirements.lock | sha256sum | cut -d' ' -f1)

make_it() {
    say "making $folder (about a minute)"
    "$main/bin/python" -m venv --clear --without-pip "$folder"
    local packages_of
    packages_of() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
    # addsitedir and not a bare path: .venv's own .pth files count, too, the one that finds graphforge among them
    echo "import site; site.addsitedir('$(packages_of "$main/bin/python")')" \
        >"$(packages_of "$folder/bin/python")/beside.pth"
    pip() { "$folder/bin/python" -m pip --disable-pip-version-check -qq "$@"; }
    # without dependencies: mmcv and mmdet name what .venv has in another version, or what nothing here imports
    pip install --no-deps $packages $beside cython wheel
    if ! pip install --no-deps --no-build-isolation --no-binary xtcocotools "$xtcocotools"; then
        say "xtcocotools cannot be built here, see above: it takes a C compiler and Python's headers" \
            "(on Debian: apt install gcc python3-dev)"
        exit 1
    fi
    cat >"$folder/bin/graphforge" <<'SCRIPT'
#!/bin/sh
exec "$(dirname "$0")/python" -c 'import sys
from graphforge.cli.main import main
sys.argv[0] = "graphforge"
sys.exit(main())' "$@"
SCRIPT
    chmod +x "$folder/bin/graphforge"
    echo "$wanted" >"$stamp"
}

[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || make_it
if [ $# -gt 0 ]; then
    here=$PWD
    cd "$start"
    PATH="$here/$folder/bin:$PATH" exec "$@"
fi
say "ready: $folder/bin/graphforge compile mmpose:rtmpose-t_8xb256-420e_coco-256x192"
