#!/usr/bin/env bash
# Trains with each of several losses and prints one table; called again, continues where it was stopped.
#   bash run.sh ablation DIR LOSSES... -- FLAGS...
#   bash run.sh ablation logs/losses itc itc+id sdm+id+mlm -- --config_file configs/irra.yaml --root_dir DATA
# FLAGS go to train.py; the runs are DIR/LOSSES.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. configs/forward.sh

folder=${1:-}
losses=()
shift || true
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    losses+=("$1")
    shift
done
[ "${#losses[@]}" -gt 0 ] || { echo "usage: bash run.sh ablation DIR LOSSES... -- FLAGS..." >&2; exit 2; }
shift || true
for each in "${losses[@]}"; do
    if [ -f "$folder/$each/last.pth" ]; then
        forward python train.py --resume --resume_ckpt_file "$folder/$each/last.pth"
    else
        forward python train.py --loss_names "$each" --run_dir "$folder/$each" "$@"
    fi
done
python -m analysis.compare "${losses[@]/#/$folder/}"
