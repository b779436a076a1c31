"""The documentation's table of methods comes from the registry."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_methods_is_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "write_llm_methods.py", "--check"], check=False)
    assert done.returncode == 0, "run python scripts/write_llm_methods.py"
