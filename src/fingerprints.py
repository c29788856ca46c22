"""What a call was made of: its arguments by their contents, its function by the code it can reach."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_SOURCE = Path(__file__).resolve().parent  # whose modules count as code that a function can reach
_SHORT = 120  # characters: longer strings are shown in the inputs file as a digest
_CHUNK = 64 * 2**20  # bytes of an array hashed at a time, so that a memory-mapped one never fills the memory


def inputs_of(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "function": f"{function.__module__}.{function.__qualname__}",
        "code": _code(function),
        "arguments": {name: describe(value, name) for name, value in arguments.items()},
    }


def changed(before: str, now: str) -> str:
    """Which inputs differ between two inputs files, for the reader; "" where there was none before."""
    if not before:
        return ""
    old, new = json.loads(before), json.loads(now)
    names = [*old["arguments"], *(name for name in new["arguments"] if name not in old["arguments"])]
    missing = object()
    changed = [n for n in names if old["arguments"].get(n, missing) != new["arguments"].get(n, missing)]
    return ", ".join((["code"] if old["code"] != new["code"] else []) + changed)


def _code(thing: Callable[..., Any] | type) -> str:
    """Digest of the code that `thing` can reach; comments, docstrings and layout do not count."""
    module = inspect.getmodule(thing)
    file = getattr(module, "__file__", None)
    if file is None:  # defined in a notebook
        return _digest(_bare(inspect.getsource(thing)).encode())
    return _digest(
        *(_bare(path.read_text(encoding="utf-8")).encode() for path in _reached(Path(file).resolve()))
    )


def _reached(file: Path) -> list[Path]:
    """The file of a module and of all modules of `src` that it imports, directly or not; itself first."""
    reached = [file]
    for one in reached:  # grows on the way
        found = [path for name in _imported(one) for path in _module_files(name)]
        reached += [path for path in dict.fromkeys(found) if path not in reached]
    return [file, *sorted(reached[1:])]


def _imported(file: Path) -> list[str]:
    """Dotted names below `src` that a module imports, at its top or inside its functions."""
    inside = file.is_relative_to(_SOURCE)
    package = ["src", *file.relative_to(_SOURCE).parent.parts] if inside else []
    names = []
    for node in _import_statements(file.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        else:
            # `from . import` is of level 1, any import by its full name of level 0.
            start = package[: len(package) - node.level + 1] if node.level else []
            place = ".".join([*start, node.module] if node.module else start)
            names += [f"{place}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("src.")]


@functools.lru_cache(maxsize=256)
def _import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]


def _module_files(name: str) -> list[Path]:
    """What importing a dotted name runs: its packages' files and, where it is a module, the module's."""
    parts = name.split(".")[1:]
    places = [_SOURCE.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return [file for file in files if file.is_file()]


@functools.lru_cache(maxsize=256)
def _bare(source: str) -> str:
    """The source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _digest(*parts: bytes | memoryview) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def describe(value: Any, name: str) -> Any:
    """What stands for `value` in the inputs file: itself where it is short, else its kind and a digest."""
    if isinstance(value, np.generic):
        value = value.item()
    if (
        value is None
        or isinstance(value, (bool, int, float))
        or (isinstance(value, str) and len(value) <= _SHORT)
    ):
        return value
    if isinstance(value, str):
        return f"text of {len(value)} characters, {_digest(value.encode('utf-8', 'surrogatepass'))}"
    if isinstance(value, Path):
        return str(value)
    if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
        return f"{type(value).__name__} {fingerprint}"
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return _describe_table(value.to_frame() if isinstance(value, pd.Series) else value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _describe_array(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {key: describe(part, f"{name}.{key}") for key, part in fields.items()}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: describe(part, f"{name}[{key!r}]") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(part, f"{name}[{i}]") for i, part in enumerate(value)]
    if callable(getattr(value, "state_dict", None)):
        return _describe_network(value)
    if inspect.isfunction(value) and "<locals>" not in value.__qualname__:
        return f"{value.__module__}.{value.__qualname__}, {_code(value)}"
    raise TypeError(
        f"Argument {name} is a {type(value).__name__}, whose contents cannot be told: pass numbers, text, "
        "paths, tables, arrays, networks or dataclasses of these, or give it an attribute `fingerprint`."
    )


def _describe_table(table: pd.DataFrame) -> str:
    hashes = pd.util.hash_pandas_object(table, index=True).to_numpy()
    columns = json.dumps([str(column) for column in table.columns])
    return f"table of {len(table)} rows, {_digest(columns.encode(), hashes.tobytes())}"


def _describe_array(array: np.ndarray) -> str:
    # A read-only memory map remembers its digest, so that it is read once; slices do not inherit that.
    digest = getattr(array, "_digest", None)
    if digest is None:
        flat = array.reshape(-1) if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)
        step = max(1, _CHUNK // max(1, array.itemsize))
        chunks = (flat[i : i + step].tobytes() for i in range(0, len(flat), step))
        digest = _digest(*chunks)
        if isinstance(array, np.memmap) and not array.flags.writeable:
            array._digest = digest  # type: ignore[attr-defined]
    return f"{array.dtype} array of {list(array.shape)}, {digest}"


def _describe_network(network: Any) -> str:
    """A torch module, by its class's code, its structure and its weights."""
    state = [f"{name} {tensor.dtype} {list(tensor.shape)}" for name, tensor in network.state_dict().items()]
    # As bytes, because NumPy has no bfloat16.
    weights = (_raw(tensor) for tensor in network.state_dict().values())
    digest = _digest(_code(type(network)).encode(), str(network).encode(), repr(state).encode(), *weights)
    return f"{type(network).__name__} network, {digest}"


def _raw(tensor: Any) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(sys.modules["torch"].uint8).numpy().tobytes() if flat.numel() else b""
