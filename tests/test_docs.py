"""What the README and the documentation say: examples run, results are the committed ones, pages build."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from maxent_onpolicy.cli.suite import load_suite

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = {
    page.relative_to(ROOT).as_posix(): "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    for page in PAGES
}


@pytest.fixture(scope="module")
def update_readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_readme", ROOT / "scripts" / "update_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page, code in EXAMPLES.items() if code])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_rollout = re.sub(r"(learn\(|TOTAL = )[\d_]+", r"\g<1>1", EXAMPLES[page])

    exec(compile(one_rollout, page, "exec"), {})


def test_the_readme_shows_the_committed_results(update_readme: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert update_readme.update(readme, ROOT / "results") == readme


def test_results_are_put_between_the_markers(update_readme: ModuleType, tmp_path: Path) -> None:
    tables = tmp_path / "quick" / "tables"
    tables.mkdir(parents=True)
    (tables / "summary.md").write_text("**Summary.** a\\1\n\n| x |\n")
    (tables / "improvement.md").write_text("| y |\n")
    markers = "a\n<!-- results:{0}:start -->\nold\n<!-- results:{0}:end -->\nb\n"

    updated = update_readme.update(markers.format("quick") + markers.format("other"), tmp_path)

    assert updated.startswith(
        "a\n<!-- results:quick:start -->\n\n**Summary.** a\\1\n\n| x |\n\n| y |\n\n![Learning curves"
    )
    assert updated.endswith(
        "learning_curves_deterministic.svg)\n\n<!-- results:quick:end -->\nb\n" + markers.format("other")
    )
    assert update_readme.update(updated, tmp_path) == updated


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))

    missing = [target for target in targets if not (page.parent / target).exists()]

    assert [target for target in missing if not is_of_a_suite_not_run_yet(target)] == []


def is_of_a_suite_not_run_yet(target: str) -> bool:
    room, *suite = target.split("/")[:2]
    return room == "results" and not (ROOT / "results" / suite[0] / "runs").is_dir()


def test_the_suites_in_the_guide_are_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guide" / "benchmarks.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "my_suite.yaml"
    counts = []
    for example in examples:
        path.write_text(example, encoding="utf-8")
        counts.append(len(load_suite(path).runs))

    assert counts == [3 * 2 * 10, 2 * 2 * 3]


def test_every_suite_with_committed_runs_has_a_page_and_a_picture_in_the_gallery() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "results").glob("*.md"))}
    gallery = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for runs in sorted((ROOT / "results").glob("**/runs")):
        suite = runs.parent.relative_to(ROOT / "results").as_posix()
        (page,) = [name for name, text in pages.items() if f"../reports/{suite}/report.html" in text]
        assert f"results/{page}\n" in gallery
        assert f"img-bottom: ../results/{suite}/figures/" in gallery


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-n",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path / "html"),
    ]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "algorithms" / "maxent_ppo.html").is_file()
    assert "sorting.js" in (tmp_path / "html" / "results" / "classic.html").read_text(encoding="utf-8")
    assert (tmp_path / "html" / "_static" / "sorting.js").is_file()
