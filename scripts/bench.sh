#!/usr/bin/env bash
# Run a suite on a fresh machine: set up .venv with what the suite needs, train, print a table, write a report.
#
#   bash scripts/bench.sh procgen-mini          generalisation on Procgen; results go to my_results/procgen-mini
#   bash scripts/bench.sh minigrid --dry-run    further options are those of `maxent-onpolicy bench`
#   bash scripts/bench.sh zero-sum              self-play in poker, and the solvers of games against others
#   bash scripts/bench.sh textworld-mini        language models in text adventures
#   bash scripts/bench.sh my_suite.yaml
#
# Needs Python 3.11 or newer with venv and pip (PYTHON=... chooses one). Run again after an interruption, it goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

[ -n "${1:-}" ] && [ "${1#-}" = "$1" ] || fail "which suite? bash scripts/bench.sh SUITE; they lie in benchmarks/suites"
suite="$1"
shift

install_extra mujoco
case "$suite" in
  *procgen*) install_procgen ;;
  *minigrid*) install_extra minigrid ;;
  *zero-sum*) install_extra games ;;
  *textworld* | llm | *llm.yaml)
    install_extra llm
    say "The first runs begin with generating their games, ten minutes, and a warm start; later ones find both"
    ;;
  *classic*)
    install_extra box2d
    install_sb3_contrib
    ;;
  *reference*) install_sb3_contrib ;;
esac

results="my_results"
trains=yes
arguments=("$@")
for index in "${!arguments[@]}"; do
  case "${arguments[$index]}" in
    --results) results="${arguments[$((index + 1))]:-$results}" ;;
    --results=*) results="${arguments[$index]#*=}" ;;
    --dry-run | --verify | --verify=*) trains=no ;;
  esac
done
case "$results" in
  /*) folder="$results" ;;
  *) folder="$PWD/$results" ;;
esac
name="$(basename "$suite" .yaml)"
say "Running the suite '$name'; its runs, tables, figures and report go to $results/$name"
status=0
"$venv/bin/maxent-onpolicy" bench "$suite" --results "$results" "$@" || status=$?
if [ "$name" = zero-sum ] && [ "$trains" = yes ] && [ "$status" = 0 ] && [ -d "$results/$name/runs" ]; then
  say "Measuring the solvers of games, a quarter of an hour; tables and figures go to $results/$name/solvers"
  (cd "$root" && "$venv/bin/python" -m benchmarks.games --output "$folder/$name/solvers" all) || status=$?
fi
if [ -f "$results/$name/report.html" ]; then
  say "Open the report in a browser: $folder/$name/report.html"
fi
exit "$status"
