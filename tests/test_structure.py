"""The shape the project promises: one direction of imports, a notebook that tells and defines nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
# A module imports only from modules further up.
FLOORS = {
    "": "limits fingerprints artifacts devices workers",
    "photos": (
        "paths words filenames remarks doubts layouts patterns tables finding formats heif jpeg decoding "
        "fetching duplicates examining cleaning series grouping splitting split_folders"
    ),
    "packs": (
        "alignment graphs pack_files sessions detecting pack as_shipped faces same_picture second_pass "
        "choice leaks export forms"
    ),
    "evaluation": (
        "ranks counting pairs score_files score_norm hardest people intervals curves support operating_point "
        "comparisons verification choosing calibration protocols open_set deferral no_face verdict "
        "recommendation answer"
    ),
    "networks": (
        "weights network recipes degradation embedding hints recognisability probes sharing losses loading "
        "stepping finetuning interpolation maps fusion"
    ),
    " ": "models model_card take_home identify inflation more_photos canvas plots tables explorer chooser",
    "demo": "people texture head features light hair scene drawing camera album mode",
    "  ": "page repeats __main__",
}
ORDER = [f"{floor}.{name}".strip(" .") for floor, names in FLOORS.items() for name in names.split()]
MODULES = sorted(
    ".".join(path.relative_to(SRC).with_suffix("").parts)
    for path in SRC.rglob("*.py")
    if path.name != "__init__.py"
)


def file_of(module: str) -> Path:
    return SRC / f"{module.replace('.', '/')}.py"


def imports(path: Path) -> set[str]:
    """Everything the file imports: top-level package names, and `src.<module>` for our own."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            below = {f"{module}.{alias.name}" for alias in node.names}
            own = {name for name in below if name.removeprefix("src.") in MODULES}
            names |= own if own == below else own | {module}
    return {name if name.startswith("src.") else name.split(".")[0] for name in names}


def test_every_module_has_its_place():
    assert set(MODULES) == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_up_the_list(module):
    own = {n.removeprefix("src.") for n in imports(file_of(module)) if n.startswith("src.")}
    assert own <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__main__"])
def test_tests_mirror_the_rooms(module):
    *floor, name = module.split(".")
    assert ROOT.joinpath("tests", *floor, f"test_{name}.py").exists()


def test_files_and_functions_can_be_read_in_one_sitting():
    for module in MODULES:
        text = file_of(module).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 75, (module, node.name)


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        (
            "insightface",
            {"packs.pack_files", "packs.sessions", "packs.detecting", "packs.pack", "packs.as_shipped"},
        ),
        ("matplotlib", {"canvas", "plots"}),
        ("onnxruntime", {"packs.sessions", "packs.pack", "packs.graphs", "packs.export", "networks.network"}),
        ("onnx", {"packs.graphs", "packs.pack", "packs.export", "packs.forms", "networks.network"}),
    ],
)
def test_heavy_packages_stay_in_their_rooms(package, rooms):
    assert {m for m in MODULES if package in imports(file_of(m))} <= rooms


def test_training_needs_neither_insightface_nor_onnx_runtime():
    """A training machine may have torch alone: crops are carried there."""
    blocked = (
        "import sys; sys.modules.update(dict.fromkeys(['insightface', 'onnxruntime', 'onnx', 'onnx2torch']))"
    )
    rooms = (
        "degradation",
        "embedding",
        "finetuning",
        "interpolation",
        "losses",
        "maps",
        "network",
        "stepping",
    )
    wanted = f"from src import models; from src.networks import {', '.join(rooms)}"
    subprocess.run([sys.executable, "-c", f"{blocked}; {wanted}"], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("python", "system", "fits", "fits_not"),
    [
        ("3.10", "linux", "2.10.0", "2.11.0"),  # CUDA 12, as onnxruntime-gpu 1.23
        ("3.10", "win32", "2.10.0", "2.11.0"),
        ("3.11", "linux", "2.15.0", "2.10.0"),  # CUDA 13, as onnxruntime-gpu since
        ("3.13", "linux", "2.11.0", "2.8.0"),
        ("3.12", "darwin", "2.6.0", "2.5.1"),
    ],
)
def test_torch_is_of_the_cuda_that_onnx_runtime_wants(python, system, fits, fits_not):
    """Libraries of two versions of CUDA lie in one folder, and one overwrites the other."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line.split("#")[0]) for line in lines if line.startswith("torch>")]
    machine = {"python_version": python, "sys_platform": system}
    (torch,) = [one for one in wanted if one.marker is None or one.marker.evaluate(machine)]
    assert torch.specifier.contains(fits) and not torch.specifier.contains(fits_not)


# ---------------------------------------------------------------- the notebook


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(ROOT / "Face_Recognition_Project.ipynb", as_version=4)


@pytest.fixture(scope="module")
def code_cells(notebook):
    """Cells of code, with their syntax trees; IPython's own commands aside."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = ["\n".join(s for s in cell.source.splitlines() if not s.startswith("%")) for cell in cells]
    return [(cell, ast.parse(source)) for cell, source in zip(cells, sources, strict=True)]


def assigned(tree: ast.Module) -> set[str]:
    return {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def test_notebook_is_valid_and_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_notebook_defines_nothing(code_cells):
    """The story calls `src`: no function, class, loop or try, in disguise neither; a handful of lines."""
    forbidden = (
        ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.Lambda,
        ast.ListComp, ast.DictComp, ast.SetComp,
    )  # fmt: skip
    for cell, tree in code_cells:
        assert not any(isinstance(node, forbidden) for node in ast.walk(tree)), cell.id
        assert len(cell.source.splitlines()) <= 12 or "parameters" in cell.metadata.get("tags", []), cell.id
        assert "dict(" not in cell.source, cell.id


def test_notebook_rebinds_no_parameter(code_cells):
    ((_, parameters),) = [c for c in code_cells if "parameters" in c[0].metadata.get("tags", [])]
    for cell, tree in code_cells:
        if tree is not parameters:
            assert not assigned(tree) & assigned(parameters), cell.id


def test_notebook_parameters_are_literals_with_a_comment_each(code_cells):
    ((cell, tree),) = [c for c in code_cells if "parameters" in c[0].metadata.get("tags", [])]
    names = [node.targets[0].id for node in tree.body if ast.literal_eval(node.value) is not None]
    assert {"dataset", "processed", "pack", "weights", "epochs", "batch_size", "learning_rate"} <= set(names)
    assert {"unseen_share", "seed"} <= set(names)
    assert all("#" in line for line in cell.source.splitlines() if line.strip())


def test_notebook_names_the_headline_model_once(code_cells):
    source = "\n".join(cell.source for cell, _ in code_cells)
    assert source.count("ResNet-50 fine-tuned") <= 1


def test_notebook_has_a_heading_per_stage_and_readable_ids(notebook):
    headings = [c.source.splitlines()[0] for c in notebook.cells if c.cell_type == "markdown"]
    stages = [h for h in headings if h.startswith("## ") and h[3].isdigit()]
    assert [int(h.split()[1]) for h in stages] == list(range(1, len(stages) + 1)) and len(stages) >= 8
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for model in range(1, 7):
        assert f"### 6.{model} · " in text
    assert all(cell.id.replace("-", "").isalnum() for cell in notebook.cells)
