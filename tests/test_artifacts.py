"""Artefacts: recomputed exactly when an input changes, whole or absent, resumed after a kill."""

import dataclasses
import errno
import importlib.util
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_defaults_count_and_spelling_does_not(tmp_path):
    path = tmp_path / "n.npy"
    cached(path, numbers, 2)
    cached(path, numbers, rows=2)
    cached(path, numbers, 2, scale=1.0)
    assert Calls.count == 1
    assert cached(path, numbers, 2, scale=2.0)[0, 0] == 2.0
    assert Calls.count == 2


def variants(value):
    """Values that a reader would call different from `value`."""
    if isinstance(value, pd.DataFrame):
        yield value.iloc[::-1]
        yield value.rename(columns={"path": "file"})
        yield value.assign(bytes=[10, 21])
        yield value.iloc[:1]
    elif isinstance(value, np.ndarray):
        yield value.astype(np.float64)
        yield value.reshape(-1)
        changed = value.copy()
        changed.flat[-1] += 1
        yield changed
    elif isinstance(value, Recipe):
        yield dataclasses.replace(value, epochs=4)
    elif isinstance(value, dict):
        yield dict(reversed(value.items()))  # the order of rows in a report follows it
        yield {**value, "b": np.ones(2)}


@pytest.mark.parametrize(
    "value",
    [
        TABLE,
        np.arange(6, dtype=np.float32).reshape(2, 3),
        Recipe(),
        {"a": np.zeros(2), "b": np.zeros(2)},
    ],
    ids=lambda v: type(v).__name__,
)
def test_any_change_of_content_is_noticed_and_a_copy_is_not(tmp_path, value):
    path = tmp_path / "e.json"
    cached(path, echo, value)
    cached(path, echo, value.copy() if hasattr(value, "copy") else dataclasses.replace(value))
    assert Calls.count == 1
    for i, other in enumerate(variants(value)):
        cached(path, echo, other)
        assert Calls.count == 2 + i, other


@settings(max_examples=50, deadline=None)
@given(st.tuples(st.integers(0, 3), st.text(max_size=3)), st.tuples(st.integers(0, 3), st.text(max_size=3)))
def test_short_arguments_are_told_apart_exactly(a, b):
    same = artifacts._inputs(echo, {"value": a[0], "other": a[1]}) == artifacts._inputs(
        echo, {"value": b[0], "other": b[1]}
    )
    assert same == (a == b)


def test_strided_and_fortran_arrays_count_by_content(tmp_path):
    base = np.arange(24, dtype=np.int16).reshape(4, 6)
    cached(tmp_path / "e.json", echo, base[:, ::2])
    cached(tmp_path / "e.json", echo, np.asfortranarray(base[:, ::2]))
    cached(tmp_path / "e.json", echo, base[:, ::2].copy())
    assert Calls.count == 1


def test_a_loaded_array_is_hashed_once_and_its_slices_for_themselves(tmp_path, monkeypatch):
    array = cached(tmp_path / "n.npy", numbers, 8)
    fresh = np.array(array)
    assert artifacts._describe(array, "a") == artifacts._describe(fresh, "a")
    monkeypatch.setattr(artifacts, "_digest", lambda *parts: pytest.fail("hashed again"))
    artifacts._describe(array, "a")
    monkeypatch.undo()
    cut, other = np.array(array[:2]), np.array(array[2:4])
    other[0] = 5
    assert (
        artifacts._describe(array[:2], "a")
        == artifacts._describe(cut, "a")
        != artifacts._describe(other, "a")
    )


def test_what_was_loaded_keys_like_what_was_computed(tmp_path):
    """Else the second run would recompute everything downstream once more."""
    table = pd.DataFrame({"a": pd.Series(["x", ""], dtype=object), "b": pd.Series([1, 2], dtype="int8")})
    for _ in range(2):
        loaded = cached(tmp_path / "t.parquet", lambda: table)
        cached(tmp_path / "e.json", echo, loaded)
    assert Calls.count == 1


def test_networks_count_by_weights_and_structure(tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)
    cached(tmp_path / "e.json", echo, network)
    cached(tmp_path / "e.json", echo, network)
    assert Calls.count == 1
    with torch.no_grad():
        network[0].weight[0, 0] += 1
    cached(tmp_path / "e.json", echo, network)
    cached(tmp_path / "e.json", echo, torch.nn.Sequential(*network, torch.nn.ReLU()))
    assert Calls.count == 3


def test_a_fingerprint_speaks_for_its_owner():
    class Pack:
        def __init__(self, fingerprint):
            self.fingerprint = fingerprint
            self.session = object()

    assert artifacts._describe(Pack("abc"), "pack") == artifacts._describe(Pack("abc"), "pack")
    assert artifacts._describe(Pack("abc"), "pack") != artifacts._describe(Pack("abd"), "pack")


def test_an_argument_that_cannot_be_told_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"other\['x'\] is a object"):
        cached(tmp_path / "e.json", echo, 1, other={"x": object()})
    assert not left(tmp_path)


def load_module(path, source):
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_code_counts_but_comments_docstrings_and_layout_do_not(tmp_path):
    module = tmp_path / "recipe_under_test.py"
    path = tmp_path / "out" / "d.json"
    sources = [
        '"""Doc."""\ndef make():\n    """Doc."""\n    return {"value": STEP}\nSTEP = 1\n',
        '"""Other."""\n# why\ndef make():\n    return {"value":\n            STEP}\nSTEP = 1\n',
        "def make():\n    return {'value': STEP}\nSTEP = 2\n",
    ]
    values = []
    for source in sources:
        values.append(cached(path, load_module(module, source).make)["value"])
        values.append(
            json.loads((tmp_path / "out" / "d.json.inputs.json").read_text(encoding="utf-8"))["code"]
        )
    assert values[0::2] == [1, 1, 2]
    assert values[1] == values[3] != values[5]


def test_the_reader_is_told_what_changed(tmp_path, capsys):
    cached(tmp_path / "n.npy", numbers, 2)
    cached(tmp_path / "n.npy", numbers, 3)
    assert "(changed: rows)" in capsys.readouterr().out


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
from src import artifacts
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
from src import artifacts
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
    with artifacts._alone(path):
        cached(path, checkpoint, 2)
        assert workspace.is_dir()
    cached(path, checkpoint, 2)
    assert not workspace.exists()
