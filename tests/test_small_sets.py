"""No set stops the notebook: its own cells, from the split on, on crops of few people with few photos."""

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from src.__main__ import NOTEBOOK
from src.demo import drawing, mode, people
from src.evaluation.pairs import ACROSS
from src.limits import NotPossible
from src.networks import network, probes
from src.packs import as_shipped
from src.packs import pack as packs
from src.packs.alignment import align
from src.photos import splitting
from tests.networks.small import small_network

PEOPLE, PHOTOS = (2, 3, 6, 8, 14, 29), (2, 3, 5, 8, 12)
AFTER_DETECTION = "baseline"  # the first cell that is run
UNSUITED = {"try-it", "choose"}  # need photos
SLOW = {"take-home"}  # exporting takes as long as all the rest


@pytest.fixture(scope="module")
def insightface():
    return packs.load(mode.PACK)


@pytest.fixture(scope="module")
def album():
    """Aligned crops uint8 [29, 12, 112, 112, 3]; every second one of each person is coarse."""
    crops = np.empty((max(PEOPLE), max(PHOTOS), 112, 112, 3), np.uint8)
    for who in range(len(crops)):
        for shot in range(crops.shape[1]):
            look = people.view(np.random.default_rng([who, shot]))
            crops[who, shot] = align(*drawing.draw(people.person(who), look, 96))
            if shot % 2:
                crops[who, shot] = crops[who, shot][::8, ::8].repeat(8, 0).repeat(8, 1)
    return crops


def small_set(photos_of: list[int], labelled: bool) -> pd.DataFrame:
    """The table after cleaning, for people with these numbers of photos."""
    identity = [f"person {who:02d}" for who, count in enumerate(photos_of) for _ in range(count)]
    shot = np.concatenate([np.arange(count) for count in photos_of])
    quality = np.where(shot % 2 == 0, "high", "low") if labelled else np.full(len(shot), "high")
    path = [f"{who}/{number:02d}.jpg" for who, number in zip(identity, shot, strict=True)]
    table = {"path": path, "identity": identity, "quality": quality, "status": "ok", "shot": shot}
    table |= {"group": np.arange(len(shot)), "sha256": path, "phash": ""}
    return pd.DataFrame(table)


@pytest.fixture
def notebook(album, insightface, tmp_path, monkeypatch):
    """Runs the notebook's cells after detection on a small set; returns what they leave behind."""
    # a light network in the place of ResNet-50; the loop, the maps and the statistics are the real ones
    monkeypatch.setattr(network, "resnet50", lambda *_, seed=0, **__: small_network(seed))
    monkeypatch.setattr(network, "_empty_resnet50", lambda _: small_network())
    monkeypatch.setattr(probes, "MOST", {"train": 16, "val": 8, "test": 8})  # a few say as much here
    # there are no photos behind the crops
    monkeypatch.setattr(as_shipped, "as_shipped", shipped)
    monkeypatch.setattr(as_shipped, "not_read", lambda faces, *_: faces[["path"]].head(0))
    monkeypatch.setattr(plt.Figure, "savefig", lambda self, file, **_: Path(file).touch())
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    sources = {c.id: "\n".join(s for s in c.source.splitlines() if s[:1] != "%") for c in cells}

    def run(clean: pd.DataFrame, unseen_share: float = 0.3, home: bool = True) -> dict:
        there: dict = {"display": lambda *_: None}
        for name in ("parameters", "imports", "rooms"):
            exec(compile(sources[name], name, "exec"), there)
        images = splitting.split(clean, unseen_share=unseen_share)
        # two faces a photo, as no photo lies behind the crops in which to look for what shows none
        faces = images.assign(found="160", n_faces=2, eye_distance=35.0, score=0.9)
        faces = faces.assign(left=0.0, top=0.0, right=96.0, bottom=96.0)
        who = faces["identity"].str[-2:].astype(int)
        there |= {
            "out": tmp_path, "run": mode.Run(tmp_path, "", "none", 1, 1, ""), "insightface": insightface,
            "images": images, "faces": faces, "crops": album[who, faces["shot"]], "batch_size": 16,
            "alike": None,
        }  # fmt: skip
        names = list(sources)
        for name in names[names.index(AFTER_DETECTION) :]:
            if name not in UNSUITED and (home or name not in SLOW):
                exec(compile(sources[name], name, "exec"), there)
                for number in plt.get_fignums():
                    plt.figure(number).draw_without_rendering()
                plt.close("all")
        return there

    return run


def shipped(faces, folder, pack):
    return np.full((len(faces), 128), np.nan, np.float32)


def check(there: dict, people_count: int) -> None:
    """Every row of every test is there: measured, or with the reason; what is measured is possible."""
    report, rows = there["report"], there["rows"]
    assert set(report["test"]) <= {"test_seen", "test_unseen", ACROSS}
    for _, part in report.groupby(["test", "quality"]):
        assert list(part["model"]) == list(rows)
    note = report["note"].fillna("")
    assert (report["auc"].notna() | note.str.startswith("not possible: ")).all()
    base = report[(report["model"] == there["reference"]) & (report["quality"] == "all")]
    assert base["auc"].between(0, 1).all() and len(base)
    for end in ("low", "high"):
        assert report[f"auc_{end}"].dropna().between(0, 1).all()
        assert report[f"auc_difference_{end}"].dropna().between(-1, 1).all()
        assert report[f"eer_difference_{end}"].dropna().between(-1, 1).all()
    chosen = there["thresholds"]
    assert (chosen["threshold"].notna() | chosen["note"].str.startswith("not possible: ")).all()
    held = there["held"]
    assert isinstance(held, NotPossible) or held["rate"].between(0, 1).all()
    words = there["verdict"].summary(report, there["rates"], there["headline"], there["no_face_row"])
    assert "nan" not in words and "nan" not in there["text"]


@pytest.mark.parametrize("labelled", [True, False], ids=["quality folders", "no quality folders"])
@pytest.mark.parametrize("photos", PHOTOS)
@pytest.mark.parametrize("people_count", PEOPLE)
def test_the_notebook_reaches_its_last_cell(notebook, people_count, photos, labelled):
    home = labelled and photos == 3
    check(notebook(small_set([photos] * people_count, labelled), home=home), people_count)


@pytest.mark.parametrize("unseen_share", [0.0, 0.3])
def test_people_with_one_to_ten_photos(notebook, unseen_share):
    check(notebook(small_set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 3, 1, 2], True), unseen_share), 14)


def test_everything_is_possible_with_enough_photos(notebook):
    """From six people with eight photos on, only the row that needs other people's photos is missing."""
    there = notebook(small_set([8] * 6, True))
    every = there["report"][there["report"]["quality"] == "all"]
    lacking = {"demo_pack as shipped", there["cautious"].name}  # the first, as the test itself has it fail
    assert set(every["model"][every["auc"].isna()]) <= lacking
    chosen = there["thresholds"].set_index("model")["threshold"]
    assert set(chosen.index[chosen.isna()]) <= lacking
    assert set(there["report"]["test"]) - {ACROSS} == {"test_seen", "test_unseen"}
