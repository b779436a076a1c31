"""The report as a whole: complete, self-contained, escaped, and the same bytes for the same runs."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from maxent_onpolicy.evaluation.report import headline, write_report
from maxent_onpolicy.evaluation.scores import load_results


def written(folder):
    """Contents of everything but the runs, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "runs" not in path.relative_to(folder).parts[:1]
    }


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that tags are balanced."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.resources, self.ids, self.links, self.text, self.images = [], [], [], [], [], 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.resources += [values[name] for name in ("src", "srcset", "data") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "link":
            self.resources.append(values["href"])
        if tag == "a":
            self.links.append(values["href"])
        if tag == "img":
            self.images += 1
            assert values["alt"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def reported(two_by_two_read_only):
    """A results directory with its report."""
    assert write_report(two_by_two_read_only, resamples=200) == two_by_two_read_only / "report.html"
    return two_by_two_read_only


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes_anywhere(make_run, tmp_path):
    for label in ("PPO", "MaxEntPPO"):
        for seed in range(2):
            make_run(label, seed=seed)
    write_report(make_run.results, resamples=200)
    first = written(make_run.results)
    assert {"report.html", "report.md", "tables/environments.csv", "figures/aggregates.svg"} <= set(first)
    write_report(make_run.results, resamples=200)
    assert written(make_run.results) == first
    elsewhere, apart = tmp_path / "another place", tmp_path / "output"
    shutil.copytree(make_run.results / "runs", elsewhere / "runs")
    write_report(elsewhere, resamples=200, output_dir=apart)
    assert written(apart) == first
    assert [path.name for path in elsewhere.iterdir()] == ["runs"]


def test_the_page_needs_nothing_but_itself(reported):
    text = (reported / "report.html").read_text()
    page = Page(text)
    assert page.images == 10  # curves in two modes, entropy, four over all environments, improvement, training on two
    assert all(resource.startswith("data:") for resource in page.resources)
    assert not re.search(r"@import|url\(|<script[^>]|http-equiv", text)
    assert text.count("<script>") == 1  # sorts tables
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(set(page.ids)) == len(page.ids)
    assert str(reported.parent) not in text
    words = " ".join("".join(page.text).split())
    assert "Preliminary: 3 seeds for each algorithm and environment, fewer than 10." in words
    assert "2 algorithms, 2 environments; 12 of 12 runs completed and used." in words
    assert "200 bootstrap resamples" in words


def test_the_markdown_refers_to_files_that_exist(reported):
    text = (reported / "report.md").read_text()
    images = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(images) == 10
    assert all((reported / image).is_file() for image in images)
    assert "| HalfCheetah-v5 | MaxEntPPO | 3 |" in text
    assert str(reported.parent) not in text


def test_names_and_errors_are_text_not_markup(make_run, blank_figures):
    make_run("<script>alert(1)</script>", "A&B|C-v0", suite="<b>suite</b>")
    make_run("PPO", state="failed", error='</table><img src="http://example.org/x">')
    page = Page(write_report(make_run.results, resamples=50).read_text())
    assert all(resource.startswith("data:") for resource in page.resources)
    assert "<script>alert(1)</script>" in page.text
    assert any("</table><img" in text for text in page.text)
    markdown = (make_run.results / "report.md").read_text()
    assert "# Results: \\<b\\>suite" in markdown
    assert "A&B\\|C-v0" in markdown


def test_broken_runs_are_listed_and_the_rest_is_reported(make_run, blank_figures):
    make_run(seed=0)
    make_run(seed=1, state="failed", error="OSError: [Errno 28] No space left on device")
    (make_run(seed=2) / "status.json").write_text("{")
    make_run(seed=3, state="running")
    page = Page(write_report(make_run.results, resamples=50).read_text())
    text = "".join(page.text)
    assert "No space left on device" in text
    assert "runs/PPO/HalfCheetah-v5/seed_2" in text
    assert "running" in text
    assert "#left-out" in page.links
    assert headline(load_results(make_run.results)) == "1 algorithm, 1 environment; 1 of 4 runs completed and used."
    assert (make_run.results / "tables" / "problems.csv").is_file()


def test_ten_seeds_need_no_warning(make_run, blank_figures):
    for seed in range(10):
        make_run(seed=seed, checkpoints=(100,), train=False)
    text = "".join(Page(write_report(make_run.results, resamples=50).read_text()).text)
    assert "Preliminary" not in text
    assert "10 seeds for each algorithm and environment." in text


def test_one_run_is_enough(make_run):
    make_run(checkpoints=(100,), modes=("stochastic",), train=False)
    page = Page(write_report(make_run.results, resamples=50).read_text())
    assert page.images == 4
    assert "Preliminary: 1 seed " in "".join(page.text)


@pytest.mark.slow
def test_what_an_earlier_report_left_is_removed_and_nothing_else(make_run, blank_figures):
    make_run(env_id="Hopper-v5")
    gone = make_run(env_id="Ant-v5", state="completed")
    make_run("RPO", env_id="Hopper-v5", state="failed")
    write_report(make_run.results, resamples=50)
    figures, tables = make_run.results / "figures", make_run.results / "tables"
    (figures / "mine.svg").write_text("keep")
    (figures / "diagnostics_notes.txt").write_text("keep")
    assert (figures / "diagnostics_Ant-v5.svg").is_file()
    assert (tables / "problems.csv").is_file()
    shutil.rmtree(gone)
    shutil.rmtree(make_run.results / "runs" / "RPO")
    write_report(make_run.results, resamples=50)
    assert not (figures / "diagnostics_Ant-v5.svg").exists()
    assert not (tables / "problems.csv").exists()
    assert (figures / "diagnostics_Hopper-v5.svg").is_file()
    assert (figures / "mine.svg").is_file()
    assert (figures / "diagnostics_notes.txt").is_file()


def test_bad_arguments_are_named_before_anything_is_written(make_run):
    make_run()
    with pytest.raises(ValueError, match="`seed`"):
        write_report(make_run.results, seed=-1)
    with pytest.raises(ValueError, match="`resamples`"):
        write_report(make_run.results, resamples=0)
    (make_run.results.parent / "empty" / "runs").mkdir(parents=True)
    with pytest.raises(ValueError, match="no completed run"):
        write_report(make_run.results.parent / "empty")
    assert [path.name for path in make_run.results.iterdir()] == ["runs"]


def test_reporting_loads_no_torch():
    code = (
        "import sys, maxent_onpolicy.evaluation.report as _;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib.pyplot')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
