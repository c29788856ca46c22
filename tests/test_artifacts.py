"""Artefacts: recomputed exactly when an input changes, whole or absent, resumed after a kill."""

import dataclasses
import errno
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import artifacts
from src.artifacts import cached

TABLE = pd.DataFrame(
    {"path": ["a/1.jpg", "b/ü 2.png"], "bytes": [10, 20], "score": [0.1, np.nan], "quality": ["high", ""]}
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    epochs: int = 3
    name: str = "plain"


class Calls:
    """Counts how often the functions below were really run."""

    count = 0


@pytest.fixture(autouse=True)
def calls():
    Calls.count = 0
    return Calls


def left(folder):
    """Names of what is in the folder, the locks aside."""
    return sorted(p.name for p in folder.iterdir() if p.name != ".locks")


def numbers(rows, scale=1.0):
    """Any array from two numbers."""
    Calls.count += 1
    return np.full((rows, 3), scale, np.float32)


def echo(value, other=None):
    Calls.count += 1
    return {"value": str(type(value))}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t.parquet", TABLE),
        ("t.csv", TABLE.drop(columns="quality")),
        ("a.npy", np.arange(12, dtype=np.uint8).reshape(3, 4)),
        ("a.npy", np.empty((0, 112, 112, 3), np.uint8)),
        ("d.json", {"auc": 0.1 + 0.2, "name": "ü"}),
    ],
)
def test_loads_what_was_computed_with_both_runs_alike(tmp_path, name, value, capsys):
    def make():
        Calls.count += 1
        return value

    first, second = cached(tmp_path / name, make), cached(tmp_path / name, make)
    assert Calls.count == 1
    for got in (first, second):
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(got, value, check_dtype=True)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(got, value)
            assert got.dtype == value.dtype and not got.flags.writeable
        else:
            assert got == value
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"computed {name} in") and said[1] == f"loaded {name} (inputs unchanged)"
    assert left(tmp_path) == sorted([name, f"{name}.inputs.json"])


def test_the_reader_is_told_what_changed(tmp_path, capsys):
    cached(tmp_path / "n.npy", numbers, 2)
    cached(tmp_path / "n.npy", numbers, 3)
    assert "(changed: rows)" in capsys.readouterr().out


@artifacts.uses(table=("path", "bytes"))
def total(table, column="bytes"):
    Calls.count += 1
    return {"value": int(table[column].sum()), "columns": list(table)}


def test_only_the_columns_that_a_function_uses_count(tmp_path, capsys):
    path = tmp_path / "d.json"
    assert cached(path, total, TABLE) == {"value": 30, "columns": ["path", "bytes"]}
    assert cached(path, total, TABLE.assign(quality="a new sentence"))["value"] == 30
    assert cached(path, total, table=TABLE.drop(columns="quality").assign(another=1))["value"] == 30
    assert cached(path, total, TABLE[["bytes", "score", "path"]])["value"] == 30  # in another order
    assert Calls.count == 1
    assert cached(path, total, TABLE.assign(bytes=[10, 21]))["value"] == 31
    assert "(changed: table)" in capsys.readouterr().out
    cached(path, total, TABLE.iloc[:1])
    assert Calls.count == 3


def test_a_column_that_is_not_declared_cannot_be_used(tmp_path):
    with pytest.raises(KeyError, match="score"):
        cached(tmp_path / "d.json", total, TABLE, column="score")
    with pytest.raises(KeyError, match="bytes"):  # nor can one that is declared be missing
        cached(tmp_path / "d.json", total, TABLE[["path"]])
    assert not left(tmp_path)
    assert total(TABLE)["columns"] == list(TABLE)  # outside `cached` a function is as it was


def test_columns_of_an_argument_that_does_not_exist_are_refused():
    with pytest.raises(TypeError, match="total has no argument tables"):
        artifacts.uses(tables=("path",))(total)


def pair(rows, workspace=None):
    """Goes on with the array that an interrupted run left."""
    Calls.count += 1
    done = workspace / "done"
    mode = "r+" if done.exists() else "w+"
    crops = np.lib.format.open_memmap(workspace / "crops.npy", mode, np.uint8, (rows, 4))
    crops[:] = 7
    done.touch()
    return pd.DataFrame({"row": range(rows)}), crops


def test_a_tuple_is_one_artefact_and_a_mapped_array_is_moved(tmp_path):
    paths = (tmp_path / "faces.parquet", tmp_path / "crops.npy")
    for _ in range(2):
        faces, crops = cached(paths, pair, 5)
        assert len(faces) == len(crops) == 5 and (crops == 7).all()
    assert Calls.count == 1
    assert not (tmp_path / "faces.parquet.workspace").exists()
    (tmp_path / "crops.npy").unlink()
    cached(paths, pair, 5)
    assert Calls.count == 2


def half(workspace=None):
    mapped = np.lib.format.open_memmap(workspace / "all.npy", "w+", np.int32, (6, 2))
    mapped[:] = np.arange(6)[:, None]
    return mapped[3:]


def test_a_part_of_a_mapped_array_is_copied_and_not_its_file_moved(tmp_path):
    assert cached(tmp_path / "half.npy", half)[:, 0].tolist() == [3, 4, 5]


def checkpoint(epochs, fail_at=None, workspace=None):
    """Remembers finished epochs in its workspace, as training does."""
    done = workspace / "done.txt"
    start = int(done.read_text()) if done.exists() else 0
    for epoch in range(start, epochs):
        if (workspace.parent / "stop").exists() and epoch == 2:
            raise KeyboardInterrupt
        Calls.count += 1
        done.write_text(str(epoch + 1))
    folder = workspace / "artefact"
    folder.mkdir(exist_ok=True)
    (folder / "weights.txt").write_text(str(epochs))
    return folder


def test_an_interrupted_run_resumes_only_for_the_same_inputs(tmp_path):
    path = tmp_path / "network"
    (tmp_path / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        cached(path, checkpoint, 4)
    assert not path.exists() and Calls.count == 2
    (tmp_path / "stop").unlink()
    assert cached(path, checkpoint, 4) == path and Calls.count == 4
    assert (path / "weights.txt").read_text() == "4"

    (tmp_path / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        cached(path, checkpoint, 5)
    assert (path / "weights.txt").read_text() == "4"  # the old one stays until the new one is whole
    (tmp_path / "stop").unlink()
    cached(path, checkpoint, 6)  # other inputs: starts from nothing
    assert Calls.count == 4 + 2 + 6
    assert left(tmp_path) == ["network", "network.inputs.json"]


def test_wrong_results_are_refused_and_leave_nothing_behind(tmp_path):
    for name, message in (("a.npy", "cannot keep a dict"), ("folder", "cannot keep a dict")):
        with pytest.raises(TypeError, match=message):
            cached(tmp_path / name, echo, 1)
    with pytest.raises(TypeError, match="must fill a folder in its workspace"):
        cached(tmp_path / "folder", lambda: tmp_path)
    with pytest.raises(TypeError, match="2 artefacts were named"):
        cached((tmp_path / "a.json", tmp_path / "b.json"), lambda: ({},))
    with pytest.raises(ValueError, match="has no suffix"):
        cached(tmp_path / "a.pkl", echo, 1)
    assert not left(tmp_path)


def test_a_damaged_artefact_is_computed_again(tmp_path, capsys):
    path = tmp_path / "n.npy"
    cached(path, numbers, 4)
    path.write_bytes(path.read_bytes()[:-5])
    assert cached(path, numbers, 4).shape == (4, 3)
    assert "cannot be read" in capsys.readouterr().out and Calls.count == 2


def test_a_full_disk_is_one_sentence_and_keeps_the_old_artefact(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    cached(path, lambda: TABLE)

    def full(self, target, **options):
        Path(target).write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match=r"disk is full: t\.parquet .* Free some space") as caught:
        cached(path, lambda rows: TABLE, 3)
    assert caught.value.errno == errno.ENOSPC
    assert left(tmp_path) == ["t.parquet", "t.parquet.inputs.json"]
    pd.testing.assert_frame_equal(pd.read_parquet(path), TABLE)


@pytest.mark.parametrize(("free", "message"), [(0, "disk is full"), (2**30, "45 requested and 0 written")])
def test_what_numpy_raises_on_a_full_disk_is_recognised(tmp_path, monkeypatch, free, message):
    """`ndarray.tofile` reports a short write with an OSError that has no errno."""

    def short(file, array, allow_pickle):
        raise OSError("45 requested and 0 written")

    monkeypatch.setattr(np, "save", short)
    monkeypatch.setattr(artifacts, "_free", lambda folder: free)
    with pytest.raises(OSError, match=message):
        cached(tmp_path / "n.npy", numbers, 9)
    assert not left(tmp_path)


def test_a_file_is_whole_or_not_there(tmp_path):
    file = tmp_path / "new" / "m.safetensors"
    with artifacts.whole(file) as partial:
        assert partial.suffix == file.suffix and partial.parent == file.parent
        partial.write_text("first")
        assert not file.exists()
    assert file.read_text() == "first" and left(file.parent) == [file.name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    old, new = tmp_path / "old.npy", tmp_path / "new.npy"
    old.write_text("old")
    for file in (old, new):
        with pytest.raises(error), artifacts.whole(file) as partial:
            partial.write_text("half of it")
            raise error
    assert left(tmp_path) == ["old.npy"] and old.read_text() == "old"


def disk_full(code=errno.ENOSPC):
    raise OSError(code, "No space left on device")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_for_whoever_writes(tmp_path, code):
    with (
        pytest.raises(OSError, match="disk is full") as caught,
        artifacts.room_for("the pack mine", tmp_path),
    ):
        disk_full(code)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.strerror == (
        f"The disk is full: the pack mine could not be written to {tmp_path}. Free some space and run again."
    )
    kept = r"run again; what was finished is kept\."
    with pytest.raises(OSError, match=kept), artifacts.room_for("x", tmp_path, resumable=True):
        disk_full()


def test_a_full_disk_is_told_once_by_who_knows_most(tmp_path):
    def make():
        with artifacts.room_for("one part", tmp_path):
            disk_full()

    with pytest.raises(OSError, match="one part") as caught, artifacts.room_for("everything", tmp_path):
        make()
    assert str(caught.value).count("disk is full") == 1
    with pytest.raises(OSError, match="one part") as caught:
        cached(tmp_path / "d.json", make)
    assert str(caught.value).count("disk is full") == 1


def test_other_errors_pass_unchanged(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "No such file"), ValueError("no")):
        with pytest.raises(type(error)) as caught, artifacts.room_for("x", tmp_path / "missing"):
            raise error
        assert caught.value is error


def test_without_a_workspace_there_is_a_folder_that_goes(tmp_path):
    given = tmp_path / "given" / "workspace"
    with artifacts.workspace_or_temporary(given) as folder:
        assert folder == given and folder.is_dir()
    assert given.is_dir()
    with artifacts.workspace_or_temporary(None) as folder:
        (folder / "part.npy").touch()
    assert not folder.exists()


def test_sha256_is_of_all_bytes(tmp_path):
    for data in (b"", b"abc", bytes(3 * 2**20 + 1)):
        (tmp_path / "file").write_bytes(data)
        assert artifacts.sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_an_open_artefact_is_a_sentence_on_windows(tmp_path, monkeypatch):
    def held(self, target):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(PermissionError, match="restart the notebook's kernel"):
        cached(tmp_path / "n.npy", numbers, 2)
    assert not left(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from src import artifacts, fingerprints
from tests import test_artifacts  # by the name it has here: the name is one of the inputs
name, step = sys.argv[2], int(sys.argv[3])
real, count = getattr(Path, name), 0
def counted(self, *args, **kwargs):
    global count
    count += 1
    if count == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *args, **kwargs)
setattr(Path, name, counted)
artifacts.cached(tuple(Path(sys.argv[1]) / n for n in ("faces.parquet", "crops.npy")), test_artifacts.pair, 5)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("call", "step"), [("unlink", 3), ("replace", 1), ("replace", 2), ("replace", 3), ("replace", 4)]
)
def test_killed_between_any_two_moves_it_never_pairs_old_with_new(tmp_path, call, step):
    script = KILLED.format(root=str(Path(__file__).parents[1]))
    paths = (tmp_path / "faces.parquet", tmp_path / "crops.npy")
    cached(paths, pair, 3)
    Calls.count = 0
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), call, str(step)], check=False)
    assert done.returncode == -signal.SIGKILL
    for rows in (5, 3, 5):
        faces, crops = cached(paths, pair, rows)
        assert len(faces) == len(crops) == rows
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".partial", ".workspace"))]


TOGETHER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from src import artifacts, fingerprints
from tests import test_artifacts
folder = Path(sys.argv[1])
(folder / f"ready-{{sys.argv[2]}}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
artifacts.cached(folder / "lines.json", test_artifacts.slow_lines, folder, int(sys.argv[3]))
"""


def slow_lines(folder, count, workspace=None):
    """Appends to a file in the workspace, as an interrupted stage does that goes on."""
    (folder / "runs.txt").open("a").write(f"{count}\n")
    log = workspace / "log.txt"
    for i in range(count):
        with log.open("a") as file:
            file.write(f"{i}\n")
        time.sleep(0.02)
    return {"lines": log.read_text().split()}


@pytest.mark.parametrize(("counts", "runs"), [((30, 30), 1), ((30, 25), 2)])
def test_two_processes_on_one_folder_take_turns(tmp_path, counts, runs):
    script = TOGETHER.format(root=str(Path(__file__).parents[1]))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(i), str(count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i, count in enumerate(counts)
    ]
    said = "".join(process.communicate(timeout=120)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert "lines.json is being computed by another process: waiting for it" in said
    assert len((tmp_path / "runs.txt").read_text().split()) == runs
    lines = json.loads((tmp_path / "lines.json").read_text())["lines"]
    assert lines == [str(i) for i in range(len(lines))] and len(lines) in counts


def test_loading_leaves_the_work_of_another_process_alone(tmp_path):
    path = tmp_path / "network"
    cached(path, checkpoint, 2)
    workspace = tmp_path / "network.workspace"
    workspace.mkdir()
    with artifacts.alone(path):
        cached(path, checkpoint, 2)
        assert workspace.is_dir()
    cached(path, checkpoint, 2)
    assert not workspace.exists()


def test_what_an_interrupted_run_has_still_mapped_is_copied_on_windows(tmp_path, monkeypatch):
    """The notebook keeps the traceback, and with it the arrays that the first run had mapped."""
    mapped: list[Path] = []

    def make(workspace):
        file = workspace / "rows.npy"
        if not file.exists():
            np.save(file, np.zeros(3))
        rows = np.load(file, mmap_mode="r+")
        if not mapped:
            mapped.append(file)
            rows[:2] = 1
            raise KeyboardInterrupt
        rows[2] = 1
        return rows

    replace = Path.replace

    def windows(self, target):
        if self in mapped:
            raise PermissionError(13, "Access is denied")
        return replace(self, target)

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "rows.npy", make)
    monkeypatch.setattr(Path, "replace", windows)
    assert cached(tmp_path / "rows.npy", make).tolist() == [1, 1, 1]
    assert left(tmp_path) == ["rows.npy", "rows.npy.inputs.json"]
