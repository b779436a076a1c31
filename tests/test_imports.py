"""The package's shape: imports point one way, reading results needs no PyTorch, files stay short, pins fit."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import maxent_onpolicy

PACKAGE = Path(maxent_onpolicy.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# What each room may import from; everyone may import from itself and from validation.py.
ALLOWED = {
    "estimators": set(),
    "envs": {"estimators"},
    "controllers": set(),
    "engine": {"estimators", "envs", "policies"},
    "policies": {"estimators"},
    "algorithms": {"estimators", "controllers", "envs", "engine", "policies"},
    "evaluation": set(),
    "games": {"envs", "evaluation", "policies"},
    "zoo": {"algorithms"},
    "tracking": {"evaluation"},
    "video": {"evaluation", "tracking"},
    "llm": {"estimators", "controllers", "policies"},
    "cli": {"algorithms", "controllers", "envs", "engine", "evaluation", "games", "llm", "tracking", "video", "zoo"},
}
PURE = {"stable_baselines3", "gymnasium", "logging", "random"}


def imported(module: str) -> set[str]:
    """Every dotted name that a module imports, but for those only a type checker sees."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def rooms(module: str) -> set[str]:
    """The rooms of the package that a module imports from."""
    names = {name.removeprefix("maxent_onpolicy.") for name in imported(module) if name.startswith("maxent_onpolicy.")}
    homes = {maxent_onpolicy._HOME.get(name, f"maxent_onpolicy.{name}") for name in names}
    return {home.split(".")[1] for home in homes} & ALLOWED.keys()


@pytest.mark.parametrize("module", [name for name in MODULES if "/" in name])
def test_imports_point_one_way(module: str) -> None:
    room = module.split("/")[0]

    assert rooms(module) <= ALLOWED[room] | {room}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("estimators/")])
def test_estimators_are_only_mathematics(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]

    assert {name.split(".")[0] for name in imported(module)} & PURE == set()
    assert [base for base in bases if base.endswith("Module")] == []


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("evaluation/")])
def test_only_the_protocol_of_evaluation_imports_torch(module: str) -> None:
    heavy = {name.split(".")[0] for name in imported(module)} & {"torch", "stable_baselines3"}

    assert heavy == set() or module == "evaluation/protocol.py"


@pytest.mark.parametrize("module", ["maxent_onpolicy", "maxent_onpolicy.evaluation.report"])
def test_reading_results_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'stable_baselines3'}} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", maxent_onpolicy.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(maxent_onpolicy, name) is not None


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short(module: str) -> None:
    assert len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= 400


def test_the_package_says_that_it_is_typed() -> None:
    assert files("maxent_onpolicy").joinpath("py.typed").is_file()


def test_pinned_versions_install_on_the_oldest_python_that_the_package_allows() -> None:
    root = PACKAGE.parent
    allowed = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = re.fullmatch(r">=(\d+\.\d+)", allowed)
    assert oldest, allowed
    needs: dict[str, str] = {}
    for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", (root / "constraints.txt").read_text()):
        try:
            installed = metadata(name)
        except PackageNotFoundError:
            continue
        if installed["Version"] == version:
            needs[f"{name} {version}"] = installed.get("Requires-Python") or ""

    assert len(needs) > 20
    assert {pin: each for pin, each in needs.items() if f"{oldest[1]}.0" not in SpecifierSet(each)} == {}
