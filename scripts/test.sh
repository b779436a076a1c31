#!/usr/bin/env bash
# Set up .venv and run the tests.
#
#   bash scripts/test.sh                        the fast tests, a few minutes
#   bash scripts/test.sh --slow                 all tests: learning runs and SB3's own tests too
#   bash scripts/test.sh tests/estimators -x    further arguments go to pytest
#
# Needs Python 3.11 or newer with venv and pip (PYTHON=... chooses one). JOBS=4 runs four tests at a time (default 2).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

selection=(-m "not slow")
if [ "${1:-}" = "--slow" ]; then
  selection=()
  shift
fi

install_extra dev

cd "$root"
# One thread a test process: torch's own threads only fight over the cores.
export OMP_NUM_THREADS=1
# A file of tests stays in one process, so that what its tests share is made, and compiled, once.
say "Running the tests"
exec "$venv/bin/python" -m pytest -n "${JOBS:-2}" --dist loadfile ${selection[@]+"${selection[@]}"} "$@"
