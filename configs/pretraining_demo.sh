#!/usr/bin/env bash
# Pre-training from end to end: draws people in four annotation forms with noisy captions, imports them, pre-trains,
# tests, fine-tunes, and prints a table. Called again, continues where it was stopped.
#   bash configs/pretraining_demo.sh [--seeds 1] [--folder DIR]     see python -m benchmarks.pretraining_demo --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec bash run.sh python -m benchmarks.pretraining_demo "$@"
