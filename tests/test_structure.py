"""The shape the project promises: one direction of imports, a notebook that tells and defines nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
# A module imports only from modules further up.
ORDER = [
    "artifacts",
    "dataset",
    "cleaning",
    "splitting",
    "insightface_pack",
    "faces",
    "pairs",
    "verification",
    "protocols",
    "model",
    "degradation",
    "embedding",
    "finetuning",
    "mapping",
    "export",
    "plots",
    "demo",
]
MODULES = sorted(path.stem for path in (ROOT / "src").glob("*.py") if not path.stem.startswith("__"))


def imports(path: Path) -> set[str]:
    """Everything the file imports: top-level package names, and `src.<module>` for our own."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            own = node.module == "src" or (node.level == 1 and not node.module)
            names |= {f"src.{alias.name}" for alias in node.names} if own else {node.module or ""}
    return {name if name.startswith("src.") else name.split(".")[0] for name in names}


def test_every_module_has_its_place():
    assert set(MODULES) == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_up_the_list(module):
    own = {n.split(".")[1] for n in imports(ROOT / "src" / f"{module}.py") if n.startswith("src.")}
    assert own <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_tests(module):
    assert (ROOT / "tests" / f"test_{module}.py").exists()


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("insightface", {"insightface_pack"}),
        ("matplotlib", {"plots"}),
        ("onnxruntime", {"insightface_pack", "export", "model"}),
    ],
)
def test_heavy_packages_stay_in_their_rooms(package, rooms):
    assert {m for m in MODULES if package in imports(ROOT / "src" / f"{m}.py")} <= rooms


def test_training_needs_neither_insightface_nor_onnx_runtime():
    """A training machine may have torch alone: crops are carried there."""
    blocked = (
        "import sys; sys.modules.update(dict.fromkeys(['insightface', 'onnxruntime', 'onnx', 'onnx2torch']))"
    )
    wanted = "from src import degradation, embedding, finetuning, model, verification"
    subprocess.run([sys.executable, "-c", f"{blocked}; {wanted}"], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(ROOT / "Face_Recognition_Project.ipynb", as_version=4)


def test_notebook_is_valid_and_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_notebook_defines_nothing(notebook):
    """The story calls `src`: no function, class, loop or try, a handful of lines a cell."""
    forbidden = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.Lambda)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
            assert not any(isinstance(node, forbidden) for node in ast.walk(ast.parse("\n".join(lines)))), (
                cell.id
            )
            assert len(lines) <= 20, cell.id


def test_notebook_parameters_are_literals_with_a_comment_each(notebook):
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    tree = ast.parse(cell.source)
    names = [node.targets[0].id for node in tree.body if ast.literal_eval(node.value) is not None]
    assert {"dataset", "processed", "pack", "weights", "epochs", "batch_size", "learning_rate"} <= set(names)
    assert {"unseen_share", "seed"} <= set(names)
    assert all("#" in line for line in cell.source.splitlines() if line.strip())


def test_notebook_has_a_heading_per_stage_and_readable_ids(notebook):
    headings = [c.source.splitlines()[0] for c in notebook.cells if c.cell_type == "markdown"]
    stages = [h for h in headings if h.startswith("## ") and h[3].isdigit()]
    assert [int(h[3]) for h in stages] == list(range(1, len(stages) + 1)) and len(stages) >= 8
    assert all(cell.id.replace("-", "").isalpha() for cell in notebook.cells)
