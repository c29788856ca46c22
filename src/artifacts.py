"""Keeps what is slow to compute: an artefact is written whole or not at all, and knows what it was made from.

`cached(path, function, ...)` is the only place that knows files are caches; the functions it calls take and
return plain values. Beside each artefact, `<artefact>.inputs.json` says in readable form what went in.
Whoever else writes a file does it with `whole`, within `room_for`.
"""

import errno
import hashlib
import inspect
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from src import fingerprints

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_LOADED: list[str] = []  # what the cell that runs has loaded so far


def cached(
    path: Path | str | tuple[Path | str, ...], function: Callable[..., T], /, *args: Any, **kwargs: Any
) -> T:
    """Loads the artefact at `path` if the inputs of the call are unchanged, else computes and writes it.

    The suffix says what is kept: .parquet and .csv a DataFrame, .npy an array (handed back memory-mapped,
    read-only), .json a dict, none a folder. A tuple of paths keeps the parts of a returned tuple. Inputs are
    the arguments' contents, defaults included, and the code that the function can reach: its module and the
    modules of `src` that it imports, followed, comments and docstrings aside. Of a table, only the columns
    count that the function `uses`, and only these are given to it. Other packages' code is not watched.

    A `function` with a parameter `workspace` is given a private folder there, which survives an interruption
    as long as the inputs stay the same: that is how it resumes. An array that is memory-mapped onto a .npy
    file in the workspace is moved into place, not copied. For a folder artefact the function fills a folder
    in its workspace and returns that folder's path.

    Two processes never compute one artefact at once: the second waits, and loads what the first has made.

    Raises OSError in one sentence where the disk is full or the old artefact is still open (Windows), and
    TypeError for an argument whose contents cannot be told or a result that does not fit the suffix. Neither
    leaves a broken artefact behind.
    """
    paths = [Path(p) for p in path] if isinstance(path, tuple) else [Path(path)]
    for p in paths:
        if p.suffix not in ("", ".parquet", ".csv", ".npy", ".json"):
            raise ValueError(
                f"{p}: an artefact ends in .parquet, .csv, .npy, .json or, for a folder, has no suffix."
            )
    names = ", ".join(p.name for p in paths)
    workspace = _workspace(paths[0])

    signature = inspect.signature(function)
    resumable = "workspace" in signature.parameters
    bound = signature.bind(*args, **kwargs, **({"workspace": None} if resumable else {}))
    bound.arguments.pop("workspace", None)
    for name, columns in getattr(function, "uses", {}).items():
        if isinstance(table := bound.arguments.get(name), pd.DataFrame):
            bound.arguments[name] = table[list(columns)]
    args, kwargs = bound.args, bound.kwargs
    bound.apply_defaults()
    bound.arguments.pop("workspace", None)
    inputs = json.dumps(fingerprints.inputs_of(function, bound.arguments), indent=1, ensure_ascii=False)

    kept = _unchanged(path, paths, inputs)
    if kept is not None:
        return kept[0]
    with room_for(names, paths[0].parent, resumable), alone(paths[0]) as waited:
        kept = _unchanged(path, paths, inputs) if waited else None
        if kept is not None:
            return kept[0]
        before, start = _text(_sidecar(paths[0])), time.perf_counter()
        if resumable:
            kwargs["workspace"] = _claim(workspace, inputs)
        try:
            for folder in {p.parent for p in paths}:
                folder.mkdir(parents=True, exist_ok=True)
            # No name of ours may keep the result: Windows can't move a file that an array is mapped onto.
            staged = _stage(function(*args, **kwargs), isinstance(path, tuple), paths, workspace)
            _commit(staged, paths, workspace, inputs)
        finally:
            for p in paths:
                _remove(_partial(p))
    why = fingerprints.changed(before, inputs)
    print(f"computed {names} in {time.perf_counter() - start:.1f} s" + (f" (changed: {why})" if why else ""))
    # Read back, so that this run and the next hand on the very same value.
    return _read_all(path, paths)


def uses(**columns: tuple[str, ...]) -> Callable[[F], F]:
    """Says which columns of its table arguments a function needs: `cached` gives it these and no others.

    So a change in any other column is no reason to compute again, and a column that is not named here cannot
    be used by mistake.

    Raises TypeError where the function has no such argument.
    """

    def marked(function: F) -> F:
        unknown = sorted(set(columns) - set(inspect.signature(function).parameters))
        if unknown:
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(unknown)}.")
        function.uses = columns  # type: ignore[attr-defined]
        return function

    return marked


# ---------------------------------------------------------------- for all who write files


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Gives a name beside `file` to write to, of the same suffix. The file appears when the block is done.

    Where the block fails there is no trace of it, and what was at `file` before is still there.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.stem}.partial{file.suffix}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def room_for(what: str, folder: Path, resumable: bool = False) -> Iterator[None]:
    """Turns errors of a full disk, or of a folder that may not be written to, into one sentence each.

    Raises OSError, or PermissionError: `what` could not be written to `folder`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and _is_below(error.filename, folder):
            raise PermissionError(
                error.errno,
                f"{what} can't be written: there is no permission to write to {folder}. Set `processed` to "
                "another folder.",
            ) from error
        told = str(error.strerror).startswith("The disk is full")  # by a `room_for` further in
        # NumPy says how many bytes were written, not that the disk is full.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or _free(folder) < 2**20
        if told or not full:
            raise
        kept = "; what was finished is kept" if resumable else ""
        sentence = f"The disk is full: {what} could not be written to {folder}."
        raise OSError(errno.ENOSPC, f"{sentence} Free some space and run again{kept}.") from error


def _is_below(file: str | bytes | None, folder: Path) -> bool:
    """Whether the file is in the folder, or is a folder that holds it."""
    if not isinstance(file, str):
        return False
    one, other = Path(file).resolve(), folder.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


@contextmanager
def workspace_or_temporary(workspace: Path | None) -> Iterator[Path]:
    """Gives the workspace, or, without one, a temporary folder that goes at the end."""
    if workspace is not None:
        workspace.mkdir(parents=True, exist_ok=True)
        yield workspace
        return
    # Windows can't remove a file that a returned array is still mapped onto.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def forget(path: Path) -> None:
    """Removes what `cached` keeps at `path`, if there is anything."""
    if path.exists():
        with alone(path):
            _sidecar(path).unlink(missing_ok=True)
            _remove(path)


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    hasher = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(2**20):
            hasher.update(chunk)
    return hasher.hexdigest()


# ---------------------------------------------------------------- one artefact


def _unchanged(
    path: Path | str | tuple[Path | str, ...], paths: list[Path], inputs: str
) -> tuple[Any] | None:
    """What is kept at `paths`, in a tuple, if it was made from the same inputs and can be read; else None."""
    if not all(_text(_sidecar(p)) == inputs and p.exists() for p in paths):
        return None
    names = ", ".join(p.name for p in paths)
    try:
        loaded = _read_all(path, paths)
    except (ValueError, OSError, EOFError) as error:  # what the libraries raise for a damaged file
        print(f"{names} cannot be read, computing again: {error}")
        return None
    if _workspace(paths[0]).exists():  # of other inputs, or of a run killed at its end
        with suppress(Timeout), _lock(paths[0]).acquire(timeout=0):
            shutil.rmtree(_workspace(paths[0]), ignore_errors=True)
    _say_loaded(names)
    return (loaded,)


def _say_loaded(names: str) -> None:
    """Says what was loaded; in a notebook once a cell ends, in one line for all of it."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        print(f"loaded {names} (inputs unchanged)")
        return
    if not _LOADED:
        shell.events.register("post_run_cell", _flush_loaded)
    _LOADED.append(names)


def _flush_loaded(_: Any) -> None:
    sys.modules["IPython"].get_ipython().events.unregister("post_run_cell", _flush_loaded)
    print(f"loaded {', '.join(dict.fromkeys(_LOADED))} (inputs unchanged)")
    _LOADED.clear()


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Holds what is at `path`: two notebooks that make it at once would spoil each other's work.

    Gives whether another process had it, once that one is done. A process that dies lets go.
    """
    lock, waited = _lock(path), False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.name} is being computed by another process: waiting for it")
        lock.acquire()
        waited = True
    try:
        yield waited
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    file = path.parent / ".locks" / f"{path.name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.inputs.json")


def _workspace(path: Path) -> Path:
    return path.with_name(f"{path.name}.workspace")


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free if folder.exists() else sys.maxsize


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- files


def _claim(workspace: Path, inputs: str) -> Path:
    """The workspace, as it was left if it was left by the same inputs, else empty."""
    marker = workspace / "inputs.json"
    if _text(marker) != inputs:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True, exist_ok=True)
        marker.write_text(inputs, encoding="utf-8")
    return workspace


def _stage(result: Any, several: bool, paths: list[Path], workspace: Path) -> list[Path]:
    """Writes each part of the result beside its place; returns what is ready to be moved there."""
    parts = list(result) if several else [result]
    if len(parts) != len(paths):
        raise TypeError(f"{len(paths)} artefacts were named for a result of {len(parts)} parts.")
    return [_write(part, path, workspace) for part, path in zip(parts, paths, strict=True)]


def _write(value: Any, path: Path, workspace: Path) -> Path:
    partial = _partial(path)
    _remove(partial)
    match path.suffix, value:
        case ".parquet", pd.DataFrame():
            value.to_parquet(partial)
        case ".csv", pd.DataFrame():
            value.to_csv(partial, index=False)
        case ".json", dict():
            partial.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
        case ".npy", np.memmap() if _whole_file(value, workspace):
            value.flush()
            return Path(str(value.filename))
        case ".npy", np.ndarray():
            with partial.open("wb") as file:
                np.save(file, value, allow_pickle=False)
        case "", Path() if value.is_dir() and workspace in value.parents:
            return value
        case "", Path():
            raise TypeError(f"{path.name}: the function must fill a folder in its workspace, not {value}.")
        case _:
            raise TypeError(f"{path.name} cannot keep a {type(value).__name__}.")
    return partial


def _whole_file(array: np.memmap, workspace: Path) -> bool:
    """Whether the array is the whole of a .npy file in the workspace, which may then simply be moved."""
    file = Path(str(array.filename))
    if file.suffix != ".npy" or workspace.resolve() not in file.resolve().parents:
        return False
    whole = np.load(file, mmap_mode="r")
    return whole.shape == array.shape and whole.dtype == array.dtype


def _commit(staged: list[Path], paths: list[Path], workspace: Path, inputs: str) -> None:
    """Moves the staged files into place. Killed anywhere, no inputs file stands beside a wrong one."""
    for path in paths:
        _sidecar(path).unlink(missing_ok=True)
    # What follows empties the workspace: a run that is killed here must not take it for work in progress.
    (workspace / "inputs.json").unlink(missing_ok=True)
    for source, path in zip(staged, paths, strict=True):
        try:
            if path.is_dir():
                shutil.rmtree(path)
            _move(source, path)
        except PermissionError as error:
            raise PermissionError(
                f"{path} cannot be replaced while something has it open: restart the notebook's kernel "
                "(or close the program that shows it) and run again."
            ) from error
    for path in paths:
        _partial(path).write_text(inputs, encoding="utf-8")
        _partial(path).replace(_sidecar(path))
    shutil.rmtree(workspace, ignore_errors=True)


def _move(source: Path, path: Path) -> None:
    """Moves what is staged into place. What an interrupted run, its traceback kept by the notebook, still has
    mapped Windows doesn't move; a copy does."""
    try:
        source.replace(path)
    except PermissionError:
        if not source.is_file() or source == _partial(path):
            raise
        shutil.copyfile(source, _partial(path))
        _partial(path).replace(path)


def _read_all(path: Path | str | tuple[Path | str, ...], paths: list[Path]) -> Any:
    values = [_read(p) for p in paths]
    return tuple(values) if isinstance(path, tuple) else values[0]


def _read(path: Path) -> Any:
    match path.suffix:
        case ".parquet":
            return pd.read_parquet(path)
        case ".csv":
            return pd.read_csv(path)
        case ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        case ".npy":
            return np.load(path, mmap_mode="r")
    return path
