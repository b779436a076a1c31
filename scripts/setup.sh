# Sourced by bench.sh, speed.sh and test.sh: one virtual environment, installed with the tested versions.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"

say() { printf '%s\n' "==> $*"; }

fail() {
  printf '%s\n' "error: $*" >&2
  exit 1
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Print the interpreter to build the environment with: $PYTHON, else the first suitable one on PATH.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_recent "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of version 3.11 or newer"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3.13 python3.12 python3.11 python3 python; do
    if is_recent "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer on PATH; install one, or name it: PYTHON=/path/to/python bash $0"
}

# Create .venv, unless there is a working one.
create_environment() {
  local python
  if is_recent "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  python="$(find_python)"
  say "Creating .venv with $("$python" --version)"
  "$python" -m venv --clear "$venv" || fail "'$python -m venv' does not work; on Debian and Ubuntu: apt install python3-venv"
}

# install_extra NAME: install the package with an extra and the tested versions, unless that is done already.
install_extra() {
  local extra="$1" stamp="$venv/.installed-$1" wanted
  create_environment
  wanted="$("$venv/bin/python" - "$root" <<'PY'
import hashlib
import pathlib
import sys

root = pathlib.Path(sys.argv[1])
files = [root / "pyproject.toml", root / "constraints.txt"]
print(hashlib.sha256(b"".join(path.read_bytes() for path in files) + str(root).encode()).hexdigest())
PY
)"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say "The package and its dependencies are installed in .venv"
    return
  fi
  say "Installing the package with the extra '$extra' and the versions of constraints.txt into .venv"
  if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    say "On Linux PyTorch comes with CUDA by default, about 5 GB; docs/installation.md says how to get the small CPU build"
  fi
  "$venv/bin/python" -m pip install --disable-pip-version-check -c "$root/constraints.txt" -e "${root}[$extra]"
  if [ "$extra" = dev ]; then
    install_procgen
    install_verl
  fi
  printf '%s\n' "$wanted" >"$stamp"
}

# What the suites with Stable-Baselines3's own classes are compared with.
install_sb3_contrib() {
  "$venv/bin/python" -m pip install --disable-pip-version-check -q -c "$root/constraints.txt" sb3-contrib
}

# requirements_of EXTRA NAME: print those requirements of an extra that begin with NAME.
requirements_of() {
  "$venv/bin/python" - "$root/pyproject.toml" "$1" "$2" <<'PY'
import pathlib
import sys
import tomllib

path, extra, name = sys.argv[1:]
project = tomllib.loads(pathlib.Path(path).read_text())["project"]
print("\n".join(each for each in project["optional-dependencies"][extra] if each.startswith(name)))
PY
}

# verl's wheel without what it asks for, an older transformers among it: the tests only evaluate its losses.
install_verl() {
  if "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
    say "No verl: it needs Python below 3.13"
    return
  fi
  local requirements
  requirements="$(requirements_of llm-verl verl)"
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -c "$root/constraints.txt" \
    -r <(printf '%s\n' "$requirements")
}

# Procgen's wheel without what it asks for: only its C library is used, but it pins numpy 1 for gym below Python 3.13.
install_procgen() {
  local requirements
  requirements="$(requirements_of procgen procgen)"
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -r <(printf '%s\n' "$requirements")
  local reason
  reason="$(why_no_procgen)"
  if [[ "$reason" == *"system library"* ]] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Procgen needs system libraries; installing them"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends libgl1 libglib2.0-0
    reason="$(why_no_procgen)"
  fi
  [ -z "$reason" ] || say "No Procgen: $reason"
}

# Print why Procgen's library cannot be loaded; nothing if it can.
why_no_procgen() {
  "$venv/bin/python" - <<'PY'
from maxent_onpolicy.envs.procgen.library import load_library

try:
    load_library()
except ImportError as error:
    print(error)
PY
}
