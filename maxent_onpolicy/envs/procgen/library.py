"""Finds and loads Procgen's C library, and declares its interface.

The wheel for Python 3.11 and 3.12 has version 1 of OpenAI's ``libenv.h``. That for 3.13 calls its own version 3: the
same functions, but two structures are laid out otherwise, and the options are passed by reference.
"""

import ctypes
import os
import platform
import sys
from ctypes import POINTER, Structure, c_char, c_int, c_int32, c_uint8, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

# In the order in which they are looked for: the wheel of Python 3.11 and 3.12, and that of 3.13.
PACKAGES = {"procgen": "procgen-mirror", "procgen_gym": "procgen-gym"}
INSTALL = "pip install 'maxent-onpolicy[procgen]'"
# Debian's package for each system library that the wheels do not bring along.
_SYSTEM_PACKAGES = {"libGL": "libgl1", "libgthread": "libglib2.0-0", "libglib": "libglib2.0-0"}
_LIBRARY = "prebuilt/libenv.so"
_NAME_LENGTH, _MAX_DIMENSIONS = 128, 16
_UINT8, _INT32, _FLOAT32 = 1, 2, 3
DTYPES = {_UINT8: "uint8", _INT32: "int32", _FLOAT32: "float32"}
OBSERVATION_SPACE, ACTION_SPACE, INFO_SPACE = 1, 2, 3


class _Option(Structure):
    _fields_ = (("name", c_char * _NAME_LENGTH), ("dtype", c_int), ("count", c_int), ("data", c_void_p))


class _Options(Structure):
    _fields_ = (("items", POINTER(_Option)), ("count", c_int))


_KIND = (("name", c_char * _NAME_LENGTH), ("scalar_type", c_int), ("dtype", c_int))
_SHAPE, _NDIM = ("shape", c_int * _MAX_DIMENSIONS), ("ndim", c_int)
_BOUNDS = (("low", c_int32), ("high", c_int32))  # unions of four bytes


class _TensorType1(Structure):
    _fields_ = (*_KIND, _SHAPE, _NDIM, *_BOUNDS)


class _TensorType3(Structure):
    _fields_ = (*_KIND, _NDIM, _SHAPE, *_BOUNDS)


class _Buffers1(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("ob", "rew", "first", "info", "ac"))


class _Buffers3(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("ob", "ac", "info", "rew", "first"))


class Interface(NamedTuple):
    """What differs between the versions.

    Attributes:
        tensor_type: ``libenv_tensortype``: one array that the library reads or writes.
        buffers: ``libenv_buffers``: where it writes, and where it reads the actions.
        options: how ``libenv_make`` takes its options.
    """

    tensor_type: Any
    buffers: Any
    options: Any


_INTERFACES = {
    1: Interface(_TensorType1, _Buffers1, _Options),
    3: Interface(_TensorType3, _Buffers3, POINTER(_Options)),
}


class Procgen(NamedTuple):
    """The loaded library.

    Attributes:
        functions: its C functions, typed.
        interface: its version's structures.
        assets: the folder of its pictures.
        package: the distribution that brought it.
    """

    functions: Any
    interface: Interface
    assets: Path
    package: str


@cache
def load_library() -> Procgen:
    """Load the C library, once for the process; nothing of the wheel's Python code is imported.

    Raises:
        ImportError: if there is no wheel for this platform, none is installed, or a system library is missing; says
            what to install.
    """
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        raise ImportError(
            "Procgen's wheels are for Linux on x86-64 only; this is "
            f"{platform.system() or sys.platform} on {platform.machine()}"
        )
    found = next(((package, folder) for module, package in PACKAGES.items() if (folder := _folder(module))), None)
    if found is None:
        raise ImportError(f"Procgen needs a package that is not installed; install it with: {INSTALL}")
    package, folder = found
    # Symbols of the Qt that the wheel brings must not mix with those of another Qt in the process.
    flags = os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0)
    try:
        functions = _open(folder / _LIBRARY, flags)
    except OSError as error:
        raise _not_loaded(package, str(error)) from error
    version = functions.libenv_version()
    if version not in _INTERFACES:
        known = " and ".join(map(str, _INTERFACES))
        raise ImportError(f"{package}'s library has version {version} of its interface; known are {known}")
    _declare(functions, _INTERFACES[version])
    return Procgen(functions, _INTERFACES[version], folder / "assets", package)


def c_options(options: dict[str, bool | int | str]) -> tuple[_Options, list[Any]]:
    """Return the options as the library takes them, and what must stay alive until it has read them."""
    items, alive = (_Option * len(options))(), []
    for item, (name, value) in zip(items, options.items(), strict=True):
        item.name, item.count = name.encode(), 1
        data: Any
        if isinstance(value, bool):
            item.dtype, data = _UINT8, c_uint8(value)
        elif isinstance(value, int):
            item.dtype, data = _INT32, c_int32(value)
        else:
            text = value.encode()
            item.dtype, item.count, data = _UINT8, len(text), ctypes.create_string_buffer(text)
        item.data = ctypes.addressof(data)
        alive.append(data)
    return _Options(items, len(options)), [items, *alive]


def _folder(module: str) -> Path | None:
    """Return the folder of the module's data, if it is installed with a library; the module is not imported."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # ValueError: someone put a module without a spec in its place
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return folder if (folder / _LIBRARY).is_file() else None


def _open(path: Path, flags: int) -> ctypes.CDLL:
    return ctypes.CDLL(str(path), mode=flags)


def _declare(functions: Any, interface: Interface) -> None:
    handle = c_void_p
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "libenv_make": (handle, (c_int, interface.options)),
        "libenv_get_tensortypes": (c_int, (handle, c_int, POINTER(interface.tensor_type))),
        "libenv_set_buffers": (None, (handle, POINTER(interface.buffers))),
        "libenv_observe": (None, (handle,)),
        "libenv_act": (None, (handle,)),
        "libenv_close": (None, (handle,)),
        "get_state": (c_int, (handle, c_int, c_void_p, c_int)),
        "set_state": (None, (handle, c_int, c_void_p, c_int)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments


def _not_loaded(package: str, reason: str) -> ImportError:
    missing = reason.partition(":")[0]
    debian = next((debian for name, debian in _SYSTEM_PACKAGES.items() if missing.startswith(name)), None)
    if debian is None:
        return ImportError(f"the library of {package} cannot be loaded: {reason}")
    return ImportError(
        f"the library of {package} needs the system library {missing}; install it with your system's packages, "
        f"on Debian and Ubuntu: apt install {' '.join(sorted(set(_SYSTEM_PACKAGES.values())))}"
    )
