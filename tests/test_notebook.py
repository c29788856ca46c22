"""The notebook itself, run top to bottom on a small demo set, through the command that users run."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from src import __main__ as runner
from src.demo import album, mode
from src.evaluation.pairs import ACROSS

SMALL = {"epochs": "2", "pack_epochs": "1", "batch_size": "16"}


def parameters(tmp_path: Path, **words: str) -> dict:
    given = {"processed": str(tmp_path / "out"), "pack": str(mode.PACK), "weights": "none", **SMALL, **words}
    return runner.parse([f"{name}={value}" for name, value in given.items()])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return album.make(tmp_path_factory.mktemp("photos"), people=14, high=4, low=5)


@pytest.fixture(scope="module")
def out(photos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return runner.run(parameters(folder, dataset=str(photos))).parent


def outputs(executed: Path) -> str:
    cells = nbformat.read(executed, as_version=4).cells
    return "".join(out.get("text", "") for c in cells if c.cell_type == "code" for out in c.outputs)


def test_every_artefact_is_there(out):
    for name in ("images.parquet", "faces.parquet", "crops.npy", "report.csv", "set_aside.csv"):
        assert (out / name).is_file(), name
    for split in ("train", "val", "test_seen", "test_unseen"):
        assert any((out / split).rglob("*.jpg")), split
    for figure in ("roc", "auc_by_stratum", "score_histograms", "det"):
        for test in ("test_seen", "test_unseen"):
            assert (out / "figures" / f"{figure}_{test}.png").is_file(), (figure, test)
    assert (out / runner.NOTEBOOK.with_suffix(".html").name).is_file()


def test_report_has_every_model_on_every_test(out):
    report = pd.read_csv(out / "report.csv")
    columns = ["model", "test", "quality", "genuine", "impostor", "auc", "auc_low", "auc_high", "eer"]
    assert set(columns) <= set(report)
    assert set(report["test"]) == {"test_seen", "test_unseen", ACROSS}
    every = report[report["quality"] == "all"]
    assert len(every) == 3 * every["model"].nunique()
    assert every.groupby("test")[["genuine", "impostor"]].nunique().eq(1).all().all()  # the same pairs
    lacking = every["model"] == "demo_pack fine-tuned, open set"  # there are no photos of other people
    assert every["auc"][~lacking].between(0, 1).all() and every["auc"][lacking].isna().all()
    assert every["note"][lacking].str.contains("photos of other people").all()
    assert list(every["model"].unique()) == [
        "demo_pack as shipped",
        "demo_pack",
        "demo_pack + linear map",
        "demo_pack + PLDA",
        "demo_pack fine-tuned",
        "demo_pack fine-tuned + PLDA",
        "ResNet-50 before",
        "ResNet-50 fine-tuned",
        "ResNet-50 fine-tuned + posterior",
        "ResNet-50 + demo_pack",
        "demo_pack fine-tuned, open set",
        "no face",
    ]


def test_nothing_is_computed_twice_and_epochs_touch_only_what_follows(photos, out, tmp_path):
    again = tmp_path / "out"
    shutil.copytree(out, again)
    same = parameters(tmp_path, dataset=str(photos))
    assert "computed" not in outputs(runner.run(same))
    text = outputs(runner.run({**same, "epochs": 1}))
    computed = [line.split()[1] for line in text.splitlines() if line.startswith("computed")]
    assert any("ResNet-50" in name for name in computed)
    untouched = {"clean.parquet", "images.parquet", "faces.parquet,", "found.parquet,", "faces.parquet"}
    assert not untouched & set(computed)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"dataset": "nowhere"}, "nowhere"),
        ({"pack": "no_such_folder/pack"}, "no_such_folder"),
        ({"weights": "missing.pth"}, "missing.pth"),
    ],
)
def test_bad_input_is_one_sentence(photos, tmp_path, words, sentence):
    with pytest.raises(RuntimeError, match=sentence) as stopped:
        runner.run(parameters(tmp_path, **{"dataset": str(photos), **words}))
    assert "Traceback" not in str(stopped.value)
    assert len(str(stopped.value).splitlines()) == 2  # the sentence, and where the notebook lies


def test_repeats_is_a_word_of_its_own():
    assert runner.repetitions(["epochs=3", "repeats=4"]) == (4, ["epochs=3"])
    assert runner.repetitions(["epochs=3"]) == (1, ["epochs=3"])
    for word in ("repeats=0", "repeats=many"):
        with pytest.raises(ValueError, match="such as repeats=3"):
            runner.repetitions([word])


def test_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="epoch=3"):
        runner.parse(["epoch=3"])
    with pytest.raises(ValueError, match="epochs=many"):
        runner.parse(["epochs=many"])
