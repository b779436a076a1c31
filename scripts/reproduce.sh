#!/usr/bin/env bash
# Reproduce a suite's results: set up .venv, train every run of it, and compare each cell with the committed runs.
#
#   bash scripts/reproduce.sh quick                    all cells; runs go to my_results/verify/quick
#   bash scripts/reproduce.sh quick PPO/Hopper-v5      one cell
#   bash scripts/reproduce.sh tables                   only the committed tables, from the committed runs, byte for byte
#
# Ends with status 1 if a mean is not where new runs' would be; for one cell in twenty that is chance.
# Run again after an interruption, it goes on; remove my_results/verify to begin anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

[ -n "${1:-}" ] && [ "${1#-}" = "$1" ] || fail "which suite? bash scripts/reproduce.sh SUITE [CELL ...]; they lie in results"
suite="$1"
shift
cd "$root"

if [ "$suite" = tables ]; then
  exec bash scripts/test.sh tests/evaluation/test_committed_results.py tests/benchmarks "$@"
fi
[ -d "results/$suite/runs" ] || fail "results/$suite has no committed runs to compare with"

bash scripts/bench.sh "$suite" --dry-run > /dev/null # installs what the suite needs
cells=("$@")
if [ "$#" = 0 ]; then
  names="$("$venv/bin/python" - "results/$suite/runs" <<'END'
import sys
from maxent_onpolicy.evaluation.runs import find_runs
print(*sorted({f"{run.label}/{run.env_id}" for run in find_runs(sys.argv[1])[0]}), sep="\n")
END
  )"
  [ -n "$names" ] || fail "results/$suite/runs has no run that can be read"
  while IFS= read -r cell; do cells+=("$cell"); done <<< "$names"
fi
status=0
for cell in "${cells[@]}"; do
  say "$cell"
  "$venv/bin/maxent-onpolicy" bench "$suite" --results results --verify "$cell" --no-tensorboard || status=$?
done
exit "$status"
