#!/usr/bin/env bash
# bash run.sh                   the demo: draw a data set, train on it, test, show the table
# bash run.sh train ARGS...     train.py
# bash run.sh test ARGS...      test.py
# bash run.sh search ARGS...    search.py
# bash run.sh export ARGS...    export.py
# bash run.sh ablation DIR LOSSES... -- ARGS...   train.py with each of the losses, then one table
# bash run.sh check [ARGS...]   lint and all tests (ARGS go to pytest)
# bash run.sh COMMAND ARGS...   any other command, in the same environment
#
# The environment (.venv) is made on first use and again when requirements.txt changes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$here/.venv"
. "$here/configs/forward.sh"

make_environment() {
    local stamp="$venv/requirements.sha256" wanted
    wanted=$(sha256sum "$here/requirements.txt" | cut -d' ' -f1)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
    local python=${PYTHON:-python3}
    command -v "$python" >/dev/null || { echo "run.sh: $python not found; install Python 3.11 or newer, or name one with PYTHON=..." >&2; exit 1; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "run.sh: $("$python" --version) is too old; install Python 3.11 or newer, or name one with PYTHON=..." >&2; exit 1; }
    echo "run.sh: making the environment in $venv (once)" >&2
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv 2> >(grep -v WARNING >&2 || true)
    # uv, because it resolves torch and torchvision to a pair of the same build
    VIRTUAL_ENV="$venv" "$venv/bin/uv" pip install --quiet --requirement "$here/requirements.txt"
    echo "$wanted" >"$stamp"
}

demo() {
    cd "$here"
    local run="logs/Mannequins/$(date +%Y%m%d_%H%M%S)_demo"
    forward python train.py --config_file configs/demo.yaml --run_dir "$run" "$@"
    forward python test.py --config_file "$run/configs.yaml"
    echo "run directory: $run"
}

check() {
    cd "$here"
    ruff check .
    ruff format --check .
    # one thread for each of two test processes: several threads in several processes only get in each other's way
    OMP_NUM_THREADS=1 forward python -m pytest --numprocesses 2 --dist worksteal "$@"
}

make_environment
export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then # nothing beside the sources; but compiling torch anew takes each start 7 s
    unset PYTHONDONTWRITEBYTECODE
    export PYTHONPYCACHEPREFIX="$venv/bytecode"
fi
case "${1:-demo}" in
demo) shift || true; demo "$@" ;;
train) shift; exec python "$here/train.py" "$@" ;;
test) shift; exec python "$here/test.py" "$@" ;;
search) shift; exec python "$here/search.py" "$@" ;;
export) shift; exec python "$here/export.py" "$@" ;;
ablation) shift; exec bash "$here/configs/ablation.sh" "$@" ;;
check) shift; check "$@" ;;
*) exec "$@" ;;
esac
