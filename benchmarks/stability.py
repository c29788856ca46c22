"""Does fine-tuning stay on course, whatever it starts from and however many people and photos there are?

    python -m benchmarks.stability --learnt CHECKPOINT/model.safetensors

Generated people, as patches of colour: 8 with 2,800 photos each, 30 with 10, 1,000 with 5. Each is trained
on with the default settings, but for few epochs, from random weights and from learnt ones (--learnt: a file
with a ResNet-50's weights, torchvision's names or ours; or "imagenet", where it can be had). A run is on
course where its loss stays finite, and validation beats chance and ends near its best. (The loss may rise, as
the margin grows.)
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src.networks import finetuning
from src.networks.network import load, resnet50

SHAPES = {(8, 2800): 2, (30, 10): 20, (1000, 5): 2}  # people, photos of each: epochs


def people(count: int, photos: int, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Crops uint8 [N, 112, 112, 3] RGB and faces: a person is a pattern, a photo adds light and noise."""
    rng = np.random.default_rng(seed)
    crops = np.empty((count * photos, 112, 112, 3), np.uint8)
    for i in range(count):
        pattern = cv2.resize(rng.uniform(40, 215, (7, 7, 3)).astype(np.float32), (128, 128))
        for j in range(photos):
            x, y = rng.integers(0, 17, 2)
            photo = pattern[y : y + 112, x : x + 112] * rng.uniform(0.6, 1.3) + rng.normal(
                0, 15, (112, 112, 1)
            )
            crops[i * photos + j] = photo.clip(0, 255)
    split = np.where(np.arange(photos) < max(2, photos // 5), "val", "train")
    identity = np.repeat([f"person {i}" for i in range(count)], photos)
    faces = pd.DataFrame({"identity": identity, "split": np.tile(split, count)})
    val = np.flatnonzero(faces["split"] == "val")
    faces.loc[rng.permutation(val)[1000:], "split"] = "test_seen"  # 1,000 photos are enough to validate on
    return crops, faces


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learnt", help='weights to start from: "imagenet" or a file')
    given = parser.parse_args()
    rows = []
    for (count, photos), epochs in SHAPES.items():
        crops, faces = people(count, photos)
        for weights in ["none", *([given.learnt] if given.learnt else [])]:
            settings = replace(finetuning.Settings(), epochs=epochs)
            with tempfile.TemporaryDirectory() as folder:
                network = resnet50(weights)
                checkpoint = finetuning.train(network, crops, faces, settings, workspace=Path(folder))
                history = load(checkpoint).history
            loss, val_auc = history["loss"].to_numpy(), history["val_auc"].to_numpy()
            near = val_auc[-1] > val_auc.max() - 0.02
            on_course = bool(np.isfinite(loss).all() and val_auc.max() > 0.6 and near)
            start = "random" if weights == "none" else Path(weights).name
            values = loss[0], loss[-1], val_auc.max(), val_auc[-1], history["seconds"].sum()
            rows.append((f"{count} x {photos}", start, epochs, *np.round(values, 3).tolist(), on_course))
            print(rows[-1], flush=True)
    columns = [
        "people x photos",
        "start",
        "epochs",
        "first loss",
        "last",
        "best val AUC",
        "last",
        "s",
        "well",
    ]
    print(pd.DataFrame(rows, columns=columns).to_string(index=False))


if __name__ == "__main__":
    main()
