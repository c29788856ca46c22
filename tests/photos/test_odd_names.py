"""People and files with odd names go from the folder to the split folders, and keep their own photos."""

import os
from pathlib import Path

import pytest

from src.photos import cleaning, finding, split_folders, splitting
from tests.photos.samples import encoded, scene, write


def album(folder: Path, people: list[str], photos: int = 3, first: int = 0) -> Path:
    for who, name in enumerate(people, first):
        for shot in range(photos):
            write(folder / name / f"{shot}.png", encoded(scene(seed=10 * who + shot), "PNG"))
    return folder


def split(folder: Path, out: Path):
    images = splitting.split(cleaning.clean(finding.find(folder), folder, workers=1))
    split_folders.materialise(images, folder, out)
    return images


@pytest.mark.parametrize(
    "people",
    [["all", "ann", "bob"], ["$HOME", "ann", "$(bob)"], ["Bob's photos", "ann & co", 'dee "d" dee'[:7]]],
)
def test_odd_names_are_people(tmp_path, people):
    if os.name == "nt":
        people = [name for name in people if not set(name) & set('"$&')] + ["zoe", "yan"]
    images = split(album(tmp_path / "photos", people), tmp_path / "out")
    assert set(images["identity"]) == set(people)
    assert (images["status"] == "ok").all()
    counts = cleaning.summary(images)
    assert counts["ok"].iloc[-1] == counts["all"].iloc[-1] == 3 * len(people)
    assert len(counts) == len(people) + 1
    assert sum(1 for _ in (tmp_path / "out").rglob("*.png")) == 3 * len(people)


@pytest.mark.skipif(os.name == "nt", reason="file names are always Unicode on Windows")
def test_names_that_are_not_utf8_are_read(tmp_path):
    folder = album(tmp_path / "photos", ["ann", "bob"])
    try:
        odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
        album(folder, [odd.name], first=5)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    images = split(folder, tmp_path / "out")
    images.to_parquet(tmp_path / "images.parquet")
    assert (images["status"] == "ok").all() and images["identity"].nunique() == 3
    assert sum(1 for _ in (tmp_path / "out").rglob("*.png")) == 9


def test_what_systems_leave_behind_is_no_person(tmp_path):
    folder = album(tmp_path / "photos", ["ann", "bob"])
    album(folder, ["@eaDir", "#recycle", ".thumbnails", "$RECYCLE.BIN"], first=5)
    images = split(folder, tmp_path / "out")
    assert set(images.loc[images["status"] == "ok", "identity"]) == {"ann", "bob"}
    assert (images["status"] == "system file").sum() == 4


def test_a_table_with_groups_and_splits_is_kept_and_audited(tmp_path):
    album(tmp_path / "photos", ["ann", "bob"], photos=4)
    splits = ["train", "train", "test_seen", "test_seen"]
    lines = ["path,identity,group,split"]
    for who in ("ann", "bob"):
        lines += [f"photos/{who}/{i}.png,{who},{who}{i // 3},{name}" for i, name in enumerate(splits)]
    table = write(tmp_path / "photos.csv", "\n".join(lines).encode())
    images = split(table, tmp_path / "out")
    assert images.groupby("identity")["split"].apply(list).tolist() == [splits, splits]
    audit = splitting.audit(images).set_index("splits")
    assert audit.loc["train - test_seen", "leak"] == "groups", "photos 0 to 2 were said to belong together"
