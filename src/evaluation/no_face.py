"""The no-face control: how much of a test can be won on the background, without any face."""

import numpy as np
import pandas as pd

from src.evaluation.verification import area, far_and_tar


def no_face(crops: np.ndarray, ring: int = 12, levels: int = 8) -> np.ndarray:
    """Embeddings without a face: unit rows [N, levels**3] from the colours of each crop's border.

    crops: uint8 [N, H, W, 3] RGB, values 0 to 255; ring: width of the border in pixels; levels: of each
    colour channel. The face is left out, so that what this tells apart is background, light and camera. Rows
    are float32, square roots of colour histograms; their cosine is the Bhattacharyya coefficient. Raises
    ValueError where the crops are not so.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[-1] != 3:
        raise ValueError(f"crops must be uint8 [N, H, W, 3] RGB, not {crops.dtype} {list(crops.shape)}")
    border = np.ones(crops.shape[1:3], bool)
    border[ring:-ring, ring:-ring] = False
    rows = np.empty((len(crops), levels**3), np.float32)
    for i, crop in enumerate(crops):
        pixels = crop[border].astype(np.int64)
        pixels = pixels[pixels.any(1)]  # aligning fills with black what lies outside the photo
        rows[i] = np.bincount(pixels * levels // 256 @ (levels**2, levels, 1), minlength=levels**3)
        rows[i] += not len(pixels)
    return np.sqrt(rows / rows.sum(1, keepdims=True))


def given_away(control: np.ndarray, faces: pd.DataFrame, least: float = 0.75) -> pd.DataFrame:
    """Folders whose photos the no-face control recognises: where background or light give people away.

    control: unit rows [N, D] of `no_face`, row i of `faces`, of which columns path, identity and group are
    read. For every folder with two photos or more, the AUC of the pairs inside it (near-duplicates aside)
    against those of its photos with other people's.
    Columns folder, photos, auc, the highest first; folders below `least` are left out.
    """
    folders = faces["path"].str.rpartition("/")[0]
    identity, group = faces["identity"].to_numpy(), faces["group"].to_numpy()
    edges = np.linspace(-1, 1, 4097)
    rows = []
    for folder, inside in folders.groupby(folders).indices.items():
        scores = np.clip(control[inside] @ control.T, -1, 1)
        first = np.tri(len(inside), k=-1, dtype=bool)
        apart = group[inside][:, None] != group[inside]
        genuine = np.histogram(scores[:, inside][first & apart], edges)[0]
        impostor = np.histogram(scores[:, identity != identity[inside[0]]], edges)[0]
        if genuine.any() and impostor.any():
            rows.append((folder, len(inside), float(area(*far_and_tar(genuine, impostor)))))
    table = pd.DataFrame(rows, columns=["folder", "photos", "auc"])
    return table[table["auc"] >= least].sort_values("auc", ascending=False, ignore_index=True)
