#!/usr/bin/env bash
# Compare maximum-entropy PPO with PPO on MuJoCo: set up .venv, train, print a table, write a report.
#
#   bash scripts/quickstart.sh                  about four minutes on two cores, after the download
#   bash scripts/quickstart.sh --dry-run        further options are those of `maxent-onpolicy bench`
#
# Needs Python 3.11 or newer with venv and pip (PYTHON=... chooses one). Run again after an interruption, it goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

install_extra mujoco

cd "$root"
results="my_results"
say "Running the suite 'quick'; its runs, tables, figures and report go to $results/quick"
status=0
"$venv/bin/maxent-onpolicy" bench quick --results "$results" "$@" || status=$?
if [ -f "$results/quick/report.html" ]; then
  say "Open the report in a browser: $root/$results/quick/report.html"
fi
exit "$status"
