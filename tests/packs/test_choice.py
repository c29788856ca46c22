"""Of several faces the person's is taken, as the person's other photos show; never across the split."""

import cv2
import numpy as np
import pandas as pd
import pytest

from src import artifacts
from src.packs import faces
from src.packs.choice import AGREES, LARGEST, NONE, ONLY, choose, doubtful
from src.photos import decoding

PEOPLE = "ann", "bob", "cem", "dee"


def looks_of(person: str, count: int, seed: int = 0, spread: float = 0.5) -> np.ndarray:
    """Embeddings of a person: about 0.8 alike, and 0 to anybody else's."""
    centre = np.random.default_rng(sum(person.encode())).standard_normal(512)
    noise = np.random.default_rng([seed, *person.encode()]).standard_normal((count, 512))
    return unit(unit(centre) + spread * unit(noise))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class Album:
    """Photos and who is in them, the largest face first."""

    def __init__(self) -> None:
        self.images: list[dict] = []
        self.candidates: list[dict] = []
        self.embeddings: list[np.ndarray] = []
        self.shown: list[str] = []

    def add(self, identity: str, split: str, *shown: str, group: int | None = None, look=None) -> "Album":
        path = f"{len(self.images)}.jpg"
        group = len(self.images) if group is None else group
        self.images.append(
            {"path": path, "status": "ok", "identity": identity, "split": split, "group": group}
        )
        for who in shown or (faces.WHOLE,):
            row = {
                "path": path, "found": faces.WHOLE if who == faces.WHOLE else "160",
                "n_faces": len(shown), "turned": 0,
            }  # fmt: skip
            self.candidates.append(row)
            seed = len(self.candidates)
            self.embeddings.append(looks_of(who, 1, seed)[0] if look is None else look)
            self.shown.append(who)
        return self

    def choose(self, images: pd.DataFrame | None = None) -> pd.DataFrame:
        """The images with what was chosen, and `shows`: who is in the crop."""
        table = pd.DataFrame(self.images) if images is None else images
        candidates = pd.DataFrame(self.candidates)
        crops = np.arange(len(candidates), dtype=np.uint8)[:, None, None, None] * np.ones(
            (1, 112, 112, 3), np.uint8
        )
        found, chosen = choose(candidates, crops, np.array(self.embeddings), table)
        assert (chosen[:, 0, 0, 0] == found["candidate"]).all() and len(chosen) == len(found)
        return faces.table(table, found).assign(shows=np.array(self.shown)[found["candidate"]])


def album(singles: int = 3, split: str = "train") -> Album:
    """Everybody alone, some times."""
    made = Album()
    for person in PEOPLE:
        for _ in range(singles):
            made.add(person, split, person)
    return made


# ----------------------------------------------------------------------------------------------- the choice


def test_the_face_that_agrees_with_the_persons_other_photos_is_taken_not_the_larger_friends():
    photos = album().add("ann", "train", "bob", "ann").add("ann", "train", "poster", "dee", "ann")
    table = photos.choose()
    assert table["shows"].tolist()[-2:] == ["ann", "ann"]
    assert table["chosen"].tolist() == [ONLY] * 12 + [AGREES] * 2
    assert table["rank"].tolist() == [1] * 12 + [2, 3]
    table = album().add("ann", "train", "ann", "bob").choose()  # here it is the largest
    assert table["rank"].iloc[-1] == 1 and table["chosen"].iloc[-1] == AGREES


def test_where_the_other_photos_do_not_tell_the_largest_is_taken():
    nobody = album().add("ann", "train", "poster", "friend")
    alone = album().add("eve", "train", "bob", "eve")
    table = album().add("ann", "train", "ann", "ann").choose()  # twice, as a mirror shows it
    for row in (nobody.choose().iloc[-1], alone.choose().iloc[-1], table.iloc[-1]):
        assert row["rank"] == 1 and row["chosen"] == LARGEST


def test_nothing_is_learnt_across_the_split():
    """Each split's choice is the one it would be were there no other; a photo of another split has no say."""
    photos = album().add("ann", "test_seen", "bob", "ann")
    assert photos.choose()["shows"].iloc[-1] == "bob"  # ann's photos in train do not help
    photos.add("ann", "test_seen", "ann").add("ann", "val", "cem", "ann")
    table = photos.choose()
    assert table["shows"].tolist()[-3:] == ["ann", "ann", "cem"]
    assert table["agreement"].iloc[-1:].isna().all()

    rng = np.random.default_rng(0)
    mixed = Album()
    for _ in range(60):
        shown = rng.choice([*PEOPLE, "x", "y"], rng.integers(1, 4), replace=False)
        mixed.add(rng.choice(PEOPLE), rng.choice(["train", "val", "test_seen"]), *shown)
    whole = mixed.choose()
    for split in whole["split"].unique():
        part, kept = Album(), whole["split"] == split
        for i in np.flatnonzero(kept):
            rows = [j for j, row in enumerate(mixed.candidates) if row["path"] == f"{i}.jpg"]
            part.images.append(mixed.images[i])
            part.candidates += [mixed.candidates[j] for j in rows]
            part.embeddings += [mixed.embeddings[j] for j in rows]
            part.shown += [mixed.shown[j] for j in rows]
        columns = ["path", "rank", "chosen", "agreement", "other", "other_agreement"]
        expected = whole.loc[kept, columns].reset_index(drop=True)
        pd.testing.assert_frame_equal(part.choose()[columns], expected)


def test_without_a_single_face_photo_the_face_that_comes_back_is_taken():
    photos = album()
    for friend in ("f", "g", "h", "bob"):
        photos.add("eve", "train", friend, "eve")
    table = photos.choose()
    assert table["shows"].tolist()[-4:] == ["eve"] * 4 and (table["chosen"][-4:] == AGREES).all()


def test_of_two_who_always_come_together_the_largest_is_taken():
    photos = album()
    for _ in range(4):
        photos.add("eve", "train", "twin", "eve")
    assert photos.choose()["shows"].tolist()[-4:] == ["twin"] * 4
    for _ in range(4):  # bob is known, from photos of his own
        photos.add("fay", "train", "bob", "fay")
    assert photos.choose()["shows"].tolist()[-4:] == ["fay"] * 4


def test_the_same_picture_in_every_photo_is_no_evidence():
    photos, poster = album(), looks_of("poster", 1, spread=0.0)[0]
    for _ in range(4):
        photos.add("eve", "train", "poster", "eve")
        photos.embeddings[-2] = poster
    assert photos.choose()["shows"].tolist()[-4:] == ["eve"] * 4


def test_a_photo_without_a_face_stays_and_tells_nothing():
    photos = album().add("ann", "train", "bob", "ann")
    before = photos.choose()
    table = photos.add("ann", "train").choose()
    assert table["chosen"].iloc[-1] == NONE and np.isfinite(table["agreement"].iloc[-1])
    pd.testing.assert_frame_equal(table.iloc[:-1][["rank", "agreement"]], before[["rank", "agreement"]])


def test_agreement_is_the_mean_cosine_with_the_others_each_group_once():
    a, b, c, d = looks_of("ann", 4)
    photos = Album()
    for group, look in ((0, a), (1, b), (1, c), (2, d)):
        photos.add("ann", "train", "ann", group=group, look=look)
    agreement = photos.choose()["agreement"].to_numpy()
    expected = [a @ ((b + c) / 2 + d) / 2, b @ (a + d) / 2, c @ (a + d) / 2, d @ (a + (b + c) / 2) / 2]
    np.testing.assert_allclose(agreement, expected, rtol=1e-5)
    assert photos.choose()["other"].tolist() == [""] * 4
    assert photos.choose()["other_agreement"].isna().all()


def test_it_is_said_who_else_a_face_is_most_like():
    photos = album().add("ann", "train", "bob")
    row = photos.choose().iloc[-1]
    assert row["other"] == "bob" and row["other_agreement"] > 0.6 > 0.3 > row["agreement"]


def test_what_does_not_belong_together_is_one_sentence():
    photos = album()
    images, candidates = pd.DataFrame(photos.images), pd.DataFrame(photos.candidates)
    crops, looks = np.zeros((12, 112, 112, 3), np.uint8), np.array(photos.embeddings)
    with pytest.raises(ValueError, match="paths differ"):
        choose(candidates, crops, looks, images[::-1])
    with pytest.raises(ValueError, match="rows must match"):
        choose(candidates, crops[1:], looks, images)


def test_a_new_split_chooses_anew_and_detects_nothing_anew(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
    images = pd.DataFrame({"path": [f"{i}.png" for i in range(6)], "status": "ok", "identity": "ann"})
    images = images.assign(sha256=images["path"], group=range(6), split="train", quality="high")

    class Pack:
        fingerprint = "two faces"

        def detect(self, photo, size=None, threshold=0.5):
            boxes = np.array([[4, 4, 60, 60, 0.9], [0, 0, 20, 20, 0.9]], np.float32)
            points = (faces.align.__globals__["TEMPLATE"] / 2)[None] + np.array([[[0, 0]], [[1, 1]]])
            return boxes[:1], points[:1].astype(np.float32)

        def map(self, function, items):
            return map(function, items)

    def run(images: pd.DataFrame) -> str:
        every = tmp_path / "candidates.parquet", tmp_path / "candidates.npy"
        chosen = tmp_path / "faces.parquet", tmp_path / "crops.npy"
        candidates, cuts = artifacts.cached(every, faces.every_face, images, tmp_path, Pack())
        looks = unit(np.asarray(cuts).reshape(len(cuts), -1)[:, :64].astype(np.float32) + 1)
        found, crops = artifacts.cached(chosen, choose, candidates, cuts, looks, images)
        assert len(found) == len(crops) == 6
        return capsys.readouterr().out

    assert run(images).count("computed") == 2
    assert run(images.assign(quality="low")).count("loaded") == 2
    again = run(images.assign(split=["train", "val"] * 3))
    assert "loaded candidates.parquet" in again and "computed faces.parquet" in again


# ------------------------------------------------------------------------------------------ what is doubtful


def test_the_doubtful_come_worst_first_with_a_reason():
    photos = album(6).add("ann", "train", "bob").add("ann", "train", "dee", "ann").add("cem", "train")
    photos.add("dee", "train", "dee", "dee").add("bob", "train", "bob", "ann").add("bob", "train", "bob")
    photos.candidates[-1]["turned"] = 180
    table = photos.choose()
    sheet = doubtful(table)
    assert sheet["doubt"].tolist() == ["unlike others", "another face", "2 faces", "turned 180", faces.WHOLE]
    assert sheet.index.tolist() == [24, 25, 27, 29, 26]  # rows of the crops
    assert sheet["reason"].iloc[0].startswith("unlike the person's other photos (")
    assert "more like bob (0." in sheet["reason"].iloc[0]
    assert sheet["reason"].iloc[1].endswith(AGREES) and LARGEST in sheet["reason"].iloc[2]
    assert set(table.columns) < set(sheet.columns)


def test_without_doubt_the_sheet_is_empty_and_still_a_sheet():
    sheet = doubtful(album(6).add("ann", "train", "ann", "bob").choose())
    assert sheet.empty and {"doubt", "reason"} <= set(sheet.columns)


def test_of_a_person_alone_in_a_split_the_face_unlike_all_others_is_doubtful():
    photos = Album()
    for _ in range(8):
        photos.add("ann", "val", "ann")
    photos.add("ann", "val", "bob")
    assert doubtful(photos.choose()).index.tolist() == [8]


def test_two_photos_that_disagree_are_both_doubtful():
    photos = album(6).add("eve", "train", "eve").add("eve", "train", "bob")
    assert sorted(doubtful(photos.choose()).index) == [24, 25]


# ----------------------------------------------------------------------------------------- on real photos


def extracted(images: pd.DataFrame, folder, pack) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    candidates, cuts = faces.every_face(images, folder, pack)
    return candidates, cuts, unit(pack.recognise(cuts))


def portraits(real, people: int) -> pd.DataFrame:
    folders = sorted((real / "lfw3d/images").iterdir())[:people]
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    images = pd.DataFrame(
        {"path": [f"{f.parent.name}/{f.name}" for f in files], "identity": [f.parent.name for f in files]}
    )
    return images.assign(status="ok", sha256=images["path"], group=range(len(images)), split="train")


def test_with_another_larger_face_beside_the_person_the_person_is_taken(real, standin, tmp_path):
    """Of 48 photos with somebody else's larger photo beside, the largest face is right in none."""
    images = portraits(real, 12)
    beside = images.groupby("identity").head(4)["path"].tolist()
    for i, path in enumerate(images["path"]):
        picture = decoding.read_rgb(real / "lfw3d/images" / path)
        if path in beside:
            other = decoding.read_rgb(real / "lfw3d/images" / images["path"].iloc[(i + 35) % len(images)])
            other = cv2.resize(other, None, fx=1.5, fy=1.5)
            canvas = np.full((other.shape[0], picture.shape[1] + other.shape[1], 3), 127, np.uint8)
            canvas[-picture.shape[0] :, : picture.shape[1]] = picture
            canvas[:, picture.shape[1] :] = other
            picture = canvas
        (tmp_path / path).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / path).replace(".jpg", ".png"), picture[..., ::-1])
    images["path"] = images["path"].str.replace(".jpg", ".png")
    crowded = images["path"].isin([path.replace(".jpg", ".png") for path in beside])
    candidates, cuts, looks = extracted(images, tmp_path, standin)
    table = faces.table(images, choose(candidates, cuts, looks, images)[0])
    largest = candidates.drop_duplicates("path").reset_index(drop=True)
    assert (largest[crowded]["right"] > 250).all()
    assert (table[crowded]["right"] < 260).all() and (table[crowded]["chosen"] == AGREES).all()
    assert (table[~crowded]["rank"] == 1).all()
    assert set(doubtful(table).query("doubt == 'another face'")["path"]) == set(images[crowded]["path"])


def test_wrong_labels_are_among_the_first_of_the_doubtful(real, standin):
    images = portraits(real, 29)
    candidates, cuts, looks = extracted(images, real / "lfw3d/images", standin)
    found, _ = choose(candidates, cuts, looks, images)
    assert (found["rank"] == 1).all()  # nobody's right face is given up
    rng = np.random.default_rng(0)
    wrong = rng.choice(len(images), 10, replace=False)
    people = images["identity"].unique()
    named = images["identity"].to_numpy().copy()
    named[wrong] = [rng.choice(people[people != named[i]]) for i in wrong]
    labelled = images.assign(identity=named)
    table = faces.table(labelled, choose(candidates, cuts, looks, labelled)[0])
    assert set(wrong) <= set(doubtful(table).index[:20])
    assert (table["other"][wrong] == images["identity"][wrong]).all()
