#!/usr/bin/env bash
# Compare maximum-entropy PPO with PPO on MuJoCo: set up .venv, train, print a table, write a report.
#
#   bash scripts/quickstart.sh                  four to eight minutes on two cores, after the download
#   bash scripts/quickstart.sh --dry-run        further options are those of `maxent-onpolicy bench`
#
# Needs Python 3.11 or newer with venv and pip (PYTHON=... chooses one). Run again after an interruption, it goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec bash scripts/bench.sh quick "$@"
