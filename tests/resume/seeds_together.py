"""Trains the runs below ``results`` together in this process, as ``bench --vectorise-seeds`` does."""

import sys
from pathlib import Path

from maxent_onpolicy.cli.worker import main

sys.argv = ["worker", *sorted(map(str, Path("results").iterdir())), "--checkpoint-seconds", "0"]
sys.exit(main())
