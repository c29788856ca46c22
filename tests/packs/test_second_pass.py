"""Copies that the first search does not see are found by their faces, and different photos are left apart."""

import cv2
import numpy as np
import pandas as pd
import pytest

from src.demo import drawing, mode, people
from src.networks.embedding import embed
from src.packs import choice, faces, leaks, second_pass
from src.packs import pack as packs
from src.photos import splitting

PEOPLE, PHOTOS = 5, 5


def recropped(photo, share):
    height, width = photo.shape[:2]
    top, left = int(share * height * 0.3), int(share * width * 0.6)
    return photo[top : top + int((1 - share) * height), left : left + int((1 - share) * width)]


def resized(photo, side, back):
    small = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, photo.shape[1::-1], interpolation=cv2.INTER_CUBIC) if back else small


def jpeg(photo, quality):
    data = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]


def grey(photo):
    return cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


# In the photos drawn here the face is about half of the side.
KINDS = {
    "recropped by 10 %": lambda photo: recropped(photo, 0.1),
    "recropped by 20 %": lambda photo: recropped(photo, 0.2),
    "recropped by 40 %": lambda photo: recropped(photo, 0.4),
    "blurred to 16 px": lambda photo: resized(photo, 32, True),
    "shrunk to 24 px": lambda photo: resized(photo, 48, False),
    "JPEG 20": lambda photo: jpeg(photo, 20),
    "grey": grey,
    "mirrored": lambda photo: photo[:, ::-1],
    "recropped, grey, mirrored, JPEG 20": lambda photo: jpeg(grey(recropped(photo, 0.2))[:, ::-1], 20),
    "recropped, blurred": lambda photo: recropped(resized(photo, 32, True), 0.2),
}


@pytest.fixture(scope="module")
def insightface():
    return packs.load(mode.PACK)


@pytest.fixture(scope="module")
def album():
    """Photos uint8 [224, 224, 3] by path; the person is the folder."""
    shots = {}
    for who in range(PEOPLE):
        for number in range(PHOTOS):
            look = people.view(np.random.default_rng([who, number]))
            shots[f"person {who}/x{chr(97 + number)}.png"] = drawing.draw(people.person(who), look, 224)[0]
    return shots


def searched(photos: dict[str, np.ndarray], folder, insightface) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table after cleaning, nothing being alike in it, and what the second pass finds."""
    inputs = to_search(photos, folder, insightface)
    return inputs[0], second_pass.same_pictures(*inputs)


def to_search(
    photos: dict[str, np.ndarray], folder, insightface
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray]:
    """The table after cleaning, candidates, crops and embeddings."""
    rows = []
    for path, photo in photos.items():
        (folder / path).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / path), np.ascontiguousarray(photo[..., ::-1]))
        rows.append((path, path.split("/")[0], photo.shape[1], photo.shape[0]))
    images = pd.DataFrame(rows, columns=["path", "identity", "width", "height"])
    images = images.assign(
        status="ok", quality="high", group=range(len(images)), sha256=images["path"], phash=""
    )
    candidates, crops = faces.every_face(images, folder, insightface)
    return images, candidates, crops, embed(crops, insightface)


def test_different_photos_are_left_apart(album, tmp_path, insightface):
    assert searched(album, tmp_path, insightface)[1].empty


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_each_kind_is_found(album, tmp_path, insightface, kind):
    copied = [f"person {who}/xa.png" for who in range(PEOPLE)]
    copies = {path.replace("xa", "copy"): np.ascontiguousarray(KINDS[kind](album[path])) for path in copied}
    _, found = searched(album | copies, tmp_path, insightface)
    wanted = {(path.replace("xa", "copy"), path) for path in copied}
    pairs = set(zip(found["path"], found["other"], strict=True))
    assert wanted <= pairs
    assert len(pairs - wanted) <= 1  # drawn faces are smooth, and two photos of one person may be much alike
    assert not found["across"].any()


def test_an_interrupted_search_goes_on_where_it_was(album, tmp_path, insightface, monkeypatch):
    copies = {f"person {who}/copy.png": recropped(album[f"person {who}/xa.png"], 0.2) for who in (0, 4)}
    inputs = to_search(album | copies, tmp_path, insightface)
    expected = second_pass.same_pictures(*inputs)
    monkeypatch.setattr(second_pass, "PEOPLE", 2)
    within, done = second_pass._Search._within, []

    def interrupted(self, people):
        done.append(len(people))
        if len(done) == 2:
            raise KeyboardInterrupt
        return within(self, people)

    monkeypatch.setattr(second_pass._Search, "_within", interrupted)
    with pytest.raises(KeyboardInterrupt):
        second_pass.same_pictures(*inputs, workspace=tmp_path / "work")
    monkeypatch.undo()
    monkeypatch.setattr(second_pass, "PEOPLE", 2)

    def counted(self, people):
        done.append(0)
        return within(self, people)

    monkeypatch.setattr(second_pass._Search, "_within", counted)
    found = second_pass.same_pictures(*inputs, workspace=tmp_path / "work")
    assert len(found) >= 2 and done == [2, 2, 0, 0]  # of three parts the first was not searched again
    pd.testing.assert_frame_equal(found, expected)


def test_a_copy_under_another_person_is_found_and_kept_in_training(album, tmp_path, insightface):
    stolen = {"person 1/copy.png": recropped(album["person 0/xa.png"], 0.2)}
    images, found = searched(album | stolen, tmp_path, insightface)
    assert found[["path", "other"]].to_numpy().tolist() == [["person 0/xa.png", "person 1/copy.png"]]
    assert found["across"].all()
    split = splitting.split(images, unseen_share=0, ties=found).set_index("path")
    assert set(split.loc[found.iloc[0][["path", "other"]], "split"]) == {"train"}


def test_photos_of_one_group_are_not_looked_at_again(album, tmp_path, insightface):
    photos = {
        "person 0/xa.png": album["person 0/xa.png"],
        "person 0/copy.png": grey(album["person 0/xa.png"]),
    }
    images, found = searched(photos | {"person 1/xa.png": album["person 1/xa.png"]}, tmp_path, insightface)
    assert len(found) == 1
    candidates, crops = faces.every_face(images, tmp_path, insightface)
    again = second_pass.same_pictures(
        images.assign(group=0), candidates, crops, np.ones((len(crops), 1), np.float32)
    )
    assert again.empty


def test_faces_of_other_images_are_refused(album, tmp_path, insightface):
    images, _ = searched({"person 0/xa.png": album["person 0/xa.png"]}, tmp_path, insightface)
    candidates, crops = faces.every_face(images, tmp_path, insightface)
    embeddings = np.ones((len(crops), 1), np.float32)
    with pytest.raises(ValueError, match="not the images"):
        second_pass.same_pictures(images.assign(path="else.png"), candidates, crops, embeddings)
    with pytest.raises(ValueError, match="rows must match"):
        second_pass.same_pictures(images, candidates, crops, embeddings[:0])


def test_with_the_pass_no_copy_is_on_both_sides_and_without_it_the_audit_finds_one(
    album, tmp_path, insightface
):
    kinds = list(KINDS.values())
    copies = {
        path.replace("/x", "/copy "): np.ascontiguousarray(kinds[place % len(kinds)](photo))
        for place, (path, photo) in enumerate(album.items())
    }
    images, found = searched(album | copies, tmp_path, insightface)
    candidates, crops = faces.every_face(images, tmp_path, insightface)
    embeddings = embed(crops, insightface)

    def crossing(ties: pd.DataFrame | None) -> tuple[pd.DataFrame, set[tuple[str, str]]]:
        """The split, and the copies that stand on the other side of it than their photo."""
        images_split = splitting.split(images, unseen_share=0, ties=ties)
        side = images_split.set_index("path")["split"]
        pairs = {(path, path.replace("/x", "/copy ")) for path in album}
        return images_split, {pair for pair in pairs if side[pair[0]] != side[pair[1]]}

    with_pass, leaking = crossing(found)
    assert not leaking and not splitting.audit(with_pass)["leak"].any()
    without, leaking = crossing(None)
    assert leaking
    chosen, its_crops = choice.choose(candidates, crops, embeddings, without)
    table = faces.table(without, chosen)
    nearest = leaks.nearest(table, its_crops, embeddings[chosen["candidate"]])
    by_crop = nearest[nearest["by"] == leaks.BY_CROP].sort_values("score", ascending=False)
    first = by_crop.iloc[0]
    assert (first["path"], first["other"]) in leaking or (first["other"], first["path"]) in leaking
    assert first["score"] > first["apart"]
