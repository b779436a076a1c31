"""What happens where Procgen, or something it needs, is not there; none of it needs the wheel."""

import ctypes
import os
import sys
from types import SimpleNamespace

import pytest

from maxent_onpolicy import make_vec_env
from maxent_onpolicy.envs.procgen import library


@pytest.fixture
def fresh(monkeypatch):
    """The loader as in a new process, on Linux on x86-64."""
    library.load_library.cache_clear()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(library.platform, "machine", lambda: "x86_64")
    yield monkeypatch
    library.load_library.cache_clear()


def installed_at(monkeypatch, folder, *modules):
    (folder / "data" / "prebuilt").mkdir(parents=True)
    (folder / "data" / "prebuilt" / "libenv.so").write_bytes(b"no library")
    specs = {name: SimpleNamespace(submodule_search_locations=[str(folder)]) for name in modules}
    monkeypatch.setattr(library, "find_spec", specs.get)


def make():
    return make_vec_env("procgen:coinrun", 2, seed=0)


def test_no_wheel(fresh):
    fresh.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'maxent-onpolicy\[procgen\]'"):
        make()


def test_a_module_of_that_name_without_a_library(fresh, tmp_path):
    fresh.setattr(library, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    with pytest.raises(ImportError, match=r"pip install 'maxent-onpolicy\[procgen\]'"):
        make()
    fresh.setattr(library, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=None))
    with pytest.raises(ImportError, match="not installed"):
        make()


def test_a_module_without_a_spec(fresh):
    def raises(name):
        raise ValueError(f"{name}.__spec__ is None")

    fresh.setattr(library, "find_spec", raises)
    with pytest.raises(ImportError, match="not installed"):
        make()


@pytest.mark.parametrize(("name", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "aarch64")])
def test_other_platforms(fresh, name, machine):
    fresh.setattr(sys, "platform", name)
    fresh.setattr(library.platform, "machine", lambda: machine)
    with pytest.raises(ImportError, match=f"for Linux on x86-64 only; this is .* on {machine}"):
        make()


@pytest.mark.parametrize("missing", ["libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"])
def test_a_missing_system_library(fresh, tmp_path, missing):
    installed_at(fresh, tmp_path, "procgen")

    def fails(path, mode):
        raise OSError(f"{missing}: cannot open shared object file: No such file or directory")

    fresh.setattr(ctypes, "CDLL", fails)
    with pytest.raises(ImportError, match=f"needs the system library {missing}.*apt install libgl1 libglib2.0-0"):
        make()


def test_a_library_that_cannot_be_loaded_for_another_reason(fresh, tmp_path):
    installed_at(fresh, tmp_path, "procgen_gym")
    with pytest.raises(ImportError, match=r"the library of procgen-gym cannot be loaded: .*libenv\.so"):
        make()


def test_another_version_of_the_interface(fresh, tmp_path):
    installed_at(fresh, tmp_path, "procgen")

    functions = SimpleNamespace(libenv_version=lambda: 2)
    fresh.setattr(ctypes, "CDLL", lambda path, mode: functions)
    with pytest.raises(ImportError, match="procgen-mirror's library has version 2 of its interface; known are 1 and 3"):
        make()


def test_how_it_is_loaded(fresh, tmp_path):
    """Without giving its symbols to others, or taking theirs: a process may have another Qt."""
    installed_at(fresh, tmp_path, "procgen")
    loaded = []

    def opened(path, mode):
        loaded.append((path, mode))
        raise OSError("stop")

    fresh.setattr(ctypes, "CDLL", opened)
    with pytest.raises(ImportError, match="stop"):
        make()
    assert loaded == [(str(tmp_path / "data/prebuilt/libenv.so"), os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)]
