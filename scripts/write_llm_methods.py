"""Write the table of methods of entropy control into the documentation.

python scripts/write_llm_methods.py           # write
python scripts/write_llm_methods.py --check   # only say whether it is up to date (exit status)
"""

import sys
from pathlib import Path

from maxent_onpolicy.llm.methods import READ_IN, list_methods

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "llm_methods.md"


def table() -> str:
    """Return the table as Markdown."""
    rows = ["| Name | Acts on | What it does | Source | Formula read in | Tested against |", "| --- " * 6 + "|"]
    for each in list_methods():
        number = each.source.partition("arXiv:")[2]
        source = f"[{each.source}](https://arxiv.org/abs/{number})" if number else each.source
        read = READ_IN[each.verified]
        rows.append(f"| `{each.name}` | {each.kind} | {each.summary} | {source} | {read} | {tested(each.released)} |")
    return "\n".join(rows) + "\n"


def tested(released: str | None) -> str:
    """Return what a method's tests compare it with; ``tests/llm/methods`` holds the table to this."""
    code = f", numbers of [{released}](https://github.com/{released})" if released else ""
    return f"an example by hand{code}"


def main() -> int:
    """Write or check the table; return the exit status."""
    if "--check" not in sys.argv:
        PAGE.write_text(table(), encoding="utf-8")
        return 0
    return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != table())


if __name__ == "__main__":
    sys.exit(main())
