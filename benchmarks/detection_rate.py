"""Detection rate and AUC of a pack as shipped and with our crops, per set and quality, and retry by retry.

    python -m benchmarks.detection_rate --root FACE_TEST_DATA frmdb lfw3d study6
    python -m benchmarks.detection_rate --root FACE_TEST_DATA --faithful frmdb lfw3d study6

As shipped, a pair with a photo in which no face is found is a non-match. With --faithful, every photo also
goes through `FaceAnalysis` itself, and the largest differences from our baseline are shown.
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

from src.packs import faces
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", help="sets: folders below --root with a folder images/<person>/")
    parser.add_argument("--root", type=Path, default=os.environ.get("FACE_TEST_DATA", "."))
    parser.add_argument("--pack", default="standin", help="a pack's name below --root/models, or its folder")
    parser.add_argument("--faithful", action="store_true", help="compare with FaceAnalysis, photo by photo")
    options = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)  # of what InsightFace calls in scikit-image
    pack = load(options.pack, root=options.root)
    for name in options.sets:
        folder = Path(options.root) / name / "images"
        print(f"\n{name}, pack {pack.name}")
        table, shipped = measure(folder, pack)
        if options.faithful:
            compare(table, shipped, folder, pack)


if __name__ == "__main__":
    main()
