"""Detection rate and AUC of a pack as shipped and with our crops, per set and quality, and retry by retry.

    python -m benchmarks.detection_rate --root FACE_TEST_DATA frmdb lfw3d study6
    python -m benchmarks.detection_rate --root FACE_TEST_DATA --faithful frmdb lfw3d study6
    python -m benchmarks.detection_rate --root FACE_TEST_DATA --spoilt lfw3d study6

As shipped, a pair with a photo in which no face is found is a non-match. With --faithful, every photo also
goes through `FaceAnalysis` itself, and the largest differences from our baseline are shown.

With --spoilt, photos are spoilt on purpose instead: turned; somebody else's larger photo put beside; put
under another name. What is told of them is counted, and what is told of those that were left as they are.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from insightface.app import FaceAnalysis
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from src.packs import choice, faces
from src.packs.as_shipped import as_shipped
from src.packs.pack import Pack, load
from src.photos import decoding, finding


def auc(embeddings: np.ndarray, table: pd.DataFrame) -> dict[str, float]:
    """AUC over all pairs, by the qualities of the two photos; rows of NaN match nobody."""
    scores = np.nan_to_num(embeddings @ embeddings.T, nan=-1.0)
    first, second = np.triu_indices(len(table), 1)
    identity, low = table["identity"].to_numpy(), (table["quality"] == "low").to_numpy()
    same = identity[first] == identity[second]
    score, lows = scores[first, second], low[first].astype(int) + low[second]
    strata = {"all": lows >= 0}
    if low.any():
        strata |= {"high-high": lows == 0, "high-low": lows == 1, "low-low": lows == 2}
    return {name: float(roc_auc_score(same[s], score[s])) for name, s in strata.items()}


def measure(folder: Path, pack: Pack) -> tuple[pd.DataFrame, np.ndarray]:
    """Prints the tables of one set; returns its faces and the embeddings as shipped."""
    images = finding.find(folder).assign(status="ok")
    with tempfile.TemporaryDirectory() as workspace:
        found, crops = faces.extract(images, folder, pack, workspace=Path(workspace))
        ours = pack.recognise(np.array(crops))
        del crops
    table = faces.table(images, found)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    shipped = as_shipped(table, folder, pack)
    print(faces.detection_rate(table, shipped).round(4).to_string(index=False))
    lost = np.isfinite(shipped).all(axis=1) & (table["found"] == faces.WHOLE).to_numpy()
    print(f"faces found as shipped but not by us: {lost.sum()}")
    order = [name + weak for name in (a.name for a in faces.ATTEMPTS) for weak in ("", ", weak")] + [
        faces.WHOLE
    ]
    share = pd.crosstab(table["found"], table["quality"], normalize="columns", margins=True)
    print(share.reindex([name for name in order if name in share.index]).round(4).to_string())
    print(
        pd.DataFrame({"as shipped": auc(shipped, table), "our crops": auc(ours, table)})
        .T.round(4)
        .to_string()
    )
    return table, shipped


def compare(table: pd.DataFrame, shipped: np.ndarray, folder: Path, pack: Pack) -> None:
    """Prints the largest differences from `FaceAnalysis` over all photos: boxes, landmarks, embeddings."""
    app = FaceAnalysis(name=str(pack.folder), providers=list(pack.providers))
    app.prepare(ctx_id=0)
    counts = disagreements = 0
    box, points, cosine = 0.0, 0.0, 1.0
    for path, row in zip(tqdm(table["path"]), shipped, strict=True):
        theirs = app.get(cv2.imread(str(folder / path)))
        boxes, landmarks = pack.detect(decoding.read_rgb(folder / path))
        disagreements += len(theirs) != len(boxes) or bool(theirs) != bool(np.isfinite(row).all())
        for face, ours, marks in zip(theirs, boxes, landmarks, strict=False):
            counts += 1
            box = max(box, float(np.abs(face.bbox - ours[:4]).max()))
            points = max(points, float(np.abs(face.kps - marks).max()))
        if theirs:
            cosine = min(cosine, float(row @ theirs[0].normed_embedding))
    print(
        f"against FaceAnalysis, {len(table)} photos, {counts} faces: {disagreements} photos with another "
        f"number of faces; boxes differ by at most {box:.2g} px, landmarks by {points:.2g} px; "
        f"least cosine {cosine:.7f}"
    )


# ---------------------------------------------------------------- spoilt photos


def spoil(name: str, folder: Path, pack: Pack, photos: int) -> None:
    """Prints what becomes of photos that are turned, have another face beside, or bear another name."""
    images = finding.find(folder).assign(status="ok", split="all")
    images["group"] = range(len(images))
    images = images.sort_values("path").groupby("identity").head(photos).reset_index(drop=True)
    candidates, cuts = faces.every_face(images, folder, pack)
    looks = unit(pack.recognise(cuts))
    table = chosen(images, candidates, cuts, looks)
    print(
        f"\n{name}, left as they are: {len(table)} photos, {len(candidates)} faces, "
        f"{(table['turned'] > 0).sum()} turned, {(table['rank'] > 1).sum()} with not the largest face; "
        f"doubtful: {choice.doubtful(table)['doubt'].value_counts().to_dict()}"
    )
    turned(images, table, folder, pack)
    beside(images, table, folder, pack)
    counts = [misnamed(images, candidates, cuts, looks, seed) for seed in range(10)]
    print(f"10 photos under another name, ten times: among the first 20 doubtful {counts}")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def chosen(
    images: pd.DataFrame, candidates: pd.DataFrame, cuts: np.ndarray, looks: np.ndarray
) -> pd.DataFrame:
    return faces.table(images, choice.choose(candidates, cuts, looks, images)[0])


def turned(images: pd.DataFrame, table: pd.DataFrame, folder: Path, pack: Pack) -> None:
    """Of 150 photos with a face, turned three ways: how many are told to be, and give the same face."""
    found = table[table["found"] != faces.WHOLE]
    for degrees in (90, 180, 270):
        told = alike = 0
        some = found["path"].iloc[:: max(1, len(found) // 150)]
        for path in tqdm(some, leave=False):
            photo = decoding.read_rgb(finding.open_path(folder, path))
            _, upright = faces.find_faces(photo, pack)[0]
            row, crop = faces.find_faces(np.ascontiguousarray(np.rot90(photo, -degrees // 90)), pack)[0]
            told += row["turned"] == 360 - degrees
            alike += np.prod(unit(pack.recognise(np.stack([upright, crop]))), axis=0).sum() > 0.7
        print(f"turned by {degrees}: {told} of {len(some)} told, {alike} give the face of the upright photo")


def beside(images: pd.DataFrame, table: pd.DataFrame, folder: Path, pack: Pack) -> None:
    """48 photos with a face, 3 a person at most, with somebody else's photo beside, half as large again."""
    found = table[table["found"] != faces.WHOLE]
    spoilt = found.sample(frac=1, random_state=0).groupby("identity").head(3).index[:48]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        for i, path in enumerate(images["path"]):
            photo = decoding.read_rgb(finding.open_path(folder, path))
            if i in spoilt:
                other = rng.choice(images["path"][images["identity"] != images["identity"][i]])
                larger = decoding.read_rgb(finding.open_path(folder, other))
                height = photo.shape[0] * 3 // 2
                width = round(larger.shape[1] * height / larger.shape[0])
                canvas = np.full((height, photo.shape[1] + width, 3), 127, np.uint8)
                canvas[-photo.shape[0] :, : photo.shape[1]] = photo
                canvas[:, photo.shape[1] :] = cv2.resize(larger, (width, height))
                photo = canvas
            cv2.imwrite(f"{place}/{i}.png", photo[..., ::-1])
        named = images.assign(path=[f"{i}.png" for i in images.index])
        candidates, cuts = faces.every_face(named, Path(place), pack)
    table = chosen(named, candidates, cuts, unit(pack.recognise(cuts)))
    whose = np.array([image_width(folder, images["path"][i]) for i in spoilt])
    largest = candidates.drop_duplicates("path").reset_index(drop=True)
    right = [int((t.loc[spoilt, ["left", "right"]].mean(axis=1) < whose).sum()) for t in (largest, table)]
    others = int((table.drop(spoilt)["rank"] > 1).sum())
    print(
        f"another, larger face beside: right in {right[0]} of {len(spoilt)} by size, in {right[1]} by "
        f"agreement; of the others {others} changed"
    )


def image_width(folder: Path, path: str) -> int:
    return decoding.read_rgb(finding.open_path(folder, path)).shape[1]


def misnamed(
    images: pd.DataFrame, candidates: pd.DataFrame, cuts: np.ndarray, looks: np.ndarray, seed: int
) -> int:
    """How many of 10 photos that are put under another name are among the first 20 doubtful."""
    rng = np.random.default_rng(seed)
    rows, people = rng.choice(len(images), 10, replace=False), images["identity"].unique()
    names = images["identity"].to_numpy().copy()
    names[rows] = [rng.choice(people[people != names[i]]) for i in rows]
    sheet = choice.doubtful(chosen(images.assign(identity=names), candidates, cuts, looks))
    return len(set(sheet.index[:20]) & set(rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", help="sets: folders below --root with a folder images/<person>/")
    parser.add_argument("--root", type=Path, default=os.environ.get("FACE_TEST_DATA", "."))
    parser.add_argument("--pack", default="standin", help="a pack's name below --root/models, or its folder")
    parser.add_argument("--faithful", action="store_true", help="compare with FaceAnalysis, photo by photo")
    parser.add_argument("--spoilt", action="store_true", help="spoil photos, and see what is told of them")
    parser.add_argument("--photos", type=int, default=200, help="of a person at most, with --spoilt")
    options = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)  # of what InsightFace calls in scikit-image
    pack = load(options.pack, root=options.root)
    for name in options.sets:
        folder = Path(options.root) / name / "images"
        if options.spoilt:
            spoil(name, folder, pack, options.photos)
            continue
        print(f"\n{name}, pack {pack.name}")
        table, shipped = measure(folder, pack)
        if options.faithful:
            compare(table, shipped, folder, pack)


if __name__ == "__main__":
    main()
