#!/usr/bin/env bash
# Measure the speed of this package against its peers, alternately in fresh processes: set up .venv, install the peers in
# .speed_envs, run, write tables and a figure into results/speed. Leave the machine alone meanwhile.
#
#   bash scripts/speed.sh                 about 35 minutes on two cores, after the download
#   bash scripts/speed.sh --quick         does everything work? about five minutes, into my_results/speed
#   bash scripts/speed.sh --help          all options, among them checkouts of CleanRL and LeanRL
#
# Needs Python 3.11 or newer with venv and pip (PYTHON=... chooses one). Run again after an interruption, it goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

install_extra mujoco

cd "$root"
exec "$venv/bin/python" -m benchmarks.speed "$@"
