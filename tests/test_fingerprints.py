"""What counts as an input: contents and reachable code do; spelling, comments and other columns do not."""

import dataclasses
import importlib.util
import json
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import src
from src import fingerprints
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
    same = fingerprints.inputs_of(echo, {"value": a[0], "other": a[1]}) == fingerprints.inputs_of(
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
    assert fingerprints.describe(array, "a") == fingerprints.describe(fresh, "a")
    monkeypatch.setattr(fingerprints, "_digest", lambda *parts: pytest.fail("hashed again"))
    fingerprints.describe(array, "a")
    monkeypatch.undo()
    cut, other = np.array(array[:2]), np.array(array[2:4])
    other[0] = 5
    assert (
        fingerprints.describe(array[:2], "a")
        == fingerprints.describe(cut, "a")
        != fingerprints.describe(other, "a")
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

    assert fingerprints.describe(Pack("abc"), "pack") == fingerprints.describe(Pack("abc"), "pack")
    assert fingerprints.describe(Pack("abc"), "pack") != fingerprints.describe(Pack("abd"), "pack")


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


KITCHEN = {
    "recipe.py": """
        from src.kitchen import dough

        def make():
            from src.kitchen.oven.heat import degrees
            return {"value": [dough.FLOUR, dough.salt(), degrees()]}
        """,
    "__init__.py": "",
    "dough.py": """
        import src.kitchen.salt

        FLOUR = 1

        def salt():
            '''How much salt.'''
            return src.kitchen.salt.GRAMS  # not sugar
        """,
    "salt.py": "GRAMS = 1",
    "oven/__init__.py": """
        from src.kitchen import salt

        salt.HEAT = 1
        """,
    "oven/heat.py": """
        from src.kitchen import salt

        def degrees():
            return salt.HEAT
        """,
    "cellar.py": "BOTTLES = 1",
}


@pytest.fixture
def kitchen(tmp_path, monkeypatch):
    """A package of `src` beside the project's own: its folder, and what a new run of Python makes with it."""
    source = tmp_path / "src"
    folder = source / "kitchen"
    for name, code in KITCHEN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(code), encoding="utf-8")
    monkeypatch.setattr(fingerprints, "_SOURCE", source)
    monkeypatch.setattr(src, "__path__", [*src.__path__, str(source)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # compiled files are dated by the second

    def forget():
        vars(src).pop("kitchen", None)
        for name in [name for name in sys.modules if name.startswith("src.kitchen")]:
            del sys.modules[name]

    def run(module="recipe"):
        forget()
        importlib.invalidate_caches()
        return cached(tmp_path / "out" / "d.json", importlib.import_module(f"src.kitchen.{module}").make)

    yield folder, run
    forget()


def change(file, old, new):
    code = file.read_text(encoding="utf-8")
    assert old in code
    file.write_text(code.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "value"),
    [
        ("dough.py", "FLOUR = 1", "FLOUR = 2", [2, 1, 1]),  # imported at the top
        ("salt.py", "GRAMS = 1", "GRAMS = 2", [1, 2, 1]),  # imported by what is imported
        ("oven/heat.py", "return salt.HEAT", "return 2", [1, 1, 2]),  # imported inside the function
        ("oven/__init__.py", "HEAT = 1", "HEAT = 2", [1, 1, 2]),  # run on the way to a module of its package
    ],
)
def test_a_change_in_a_module_that_is_imported_is_noticed(kitchen, capsys, name, old, new, value):
    folder, run = kitchen
    assert run() == run() == {"value": [1, 1, 1]}
    assert capsys.readouterr().out.count("computed") == 1
    change(folder / name, old, new)
    assert run() == {"value": value}
    assert "(changed: code)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("dough.py", "How much salt.", "Salt, in grams."),
        ("dough.py", "# not sugar", "# nor pepper"),
        ("dough.py", "FLOUR = 1", "FLOUR   =   1"),
        ("cellar.py", "BOTTLES = 1", "BOTTLES = 2"),  # nobody imports it
    ],
)
def test_a_change_that_the_function_cannot_see_is_none(kitchen, capsys, name, old, new):
    folder, run = kitchen
    run()
    change(folder / name, old, new)
    capsys.readouterr()
    run()
    assert capsys.readouterr().out == "loaded d.json (inputs unchanged)\n"


@pytest.mark.parametrize(
    ("statement", "expression"),
    [
        ("from src.kitchen import dough", "dough.FLOUR"),
        ("from src.kitchen.dough import FLOUR as flour", "flour"),
        ("import src.kitchen.dough as dough", "dough.FLOUR"),
        ("import src.kitchen.dough", "src.kitchen.dough.FLOUR"),
        ("from src.kitchen.dough import *", "FLOUR"),
        ("from . import dough", "dough.FLOUR"),
        ("from .dough import FLOUR", "FLOUR"),
        ("from ..kitchen.dough import FLOUR", "FLOUR"),
    ],
)
def test_every_form_of_import_is_followed(kitchen, statement, expression):
    folder, run = kitchen
    code = f"{statement}\ndef make():\n    return {{'value': {expression}}}\n"
    (folder / "bread.py").write_text(code, encoding="utf-8")
    assert run("bread") == {"value": 1}
    change(folder / "dough.py", "FLOUR = 1", "FLOUR = 2")
    assert run("bread") == {"value": 2}


def test_modules_that_import_each_other_are_followed_once(kitchen):
    folder, run = kitchen
    change(folder / "salt.py", "GRAMS = 1", "GRAMS = 1\ndef late():\n    from src.kitchen import dough")
    assert run() == {"value": [1, 1, 1]}
    change(folder / "salt.py", "GRAMS = 1", "GRAMS = 2")
    assert run() == {"value": [1, 2, 1]}
