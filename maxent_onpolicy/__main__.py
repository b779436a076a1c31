"""``python -m maxent_onpolicy`` is ``maxent-onpolicy``."""

import sys

from maxent_onpolicy.cli.main import main

sys.exit(main())
