#!/usr/bin/env bash
# Build the documentation with the gallery of results and the full report of every suite: set up .venv, run Sphinx.
#
#   bash scripts/docs.sh            about five minutes; the page to open is docs/_build/index.html
#   bash scripts/docs.sh --fast     without the full reports, half a minute
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

tags=(-t reports)
case "${1:-}" in
  "") ;;
  --fast) tags=() ;;
  *) fail "unknown option $1; there is --fast" ;;
esac
cd "$root"
install_extra dev
say "Building docs/_build"
"$venv/bin/python" -m sphinx -W --keep-going -n -q -b html "${tags[@]}" docs docs/_build
say "Done: docs/_build/index.html"
