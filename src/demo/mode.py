"""What the notebook runs on: the user's photos, or the demo set and the demo pack where there are none."""

import os
from dataclasses import dataclass
from pathlib import Path

from src.demo.album import make
from src.photos.paths import is_system_file, place

PACK = Path(__file__).parent / "demo_pack"
"""The committed detector and recogniser in InsightFace's format; made by benchmarks/train_demo_pack.py."""

EPOCHS = (22, 10)  # of the ResNet-50 and of the pack's recogniser, at most: a demo takes minutes

STRANGERS = 7  # the seed that draws people who are not in the demo set
_PHOTOS = Path(__file__).parents[2] / "dataset" / "images"  # where the project asks for photos


@dataclass(frozen=True)
class Run:
    """What one run of the notebook is made of."""

    folder: Path  # of the photos, with one subfolder per person
    pack: str  # InsightFace pack: a name, or a folder that holds its .onnx files
    weights: str  # where the ResNet-50 starts
    epochs: int  # passes of the ResNet-50 over the training photos, at most
    pack_epochs: int  # passes of the pack's own recogniser over them
    label: str  # stands before the models' names: "demo · " or ""
    strangers: str = ""  # other people's photos: a folder, "lfw", or none


def choose(
    dataset: str,
    pack: str,
    weights: str,
    epochs: int,
    pack_epochs: int,
    processed: Path,
    strangers: str = "",
    people: int = 48,
) -> Run:
    """What is given, or the demo where the project's own dataset/images holds no photos.

    The demo: generated faces of `people` people, made in `processed`/demo, of as many strangers, the demo
    pack, random weights, at most `EPOCHS`, and the label "demo · "; a banner says so. A dataset folder of the
    user's own is never replaced, whatever it holds. What systems leave behind, and a README, are no photos.
    """
    folder = place(dataset)
    if folder.resolve() != _PHOTOS.resolve() or not _is_empty(_PHOTOS):
        return Run(folder, pack, weights, epochs, pack_epochs, label="", strangers=strangers)
    epochs, pack_epochs = min(epochs, EPOCHS[0]), min(pack_epochs, EPOCHS[1])
    print(f"DEMO: {dataset} holds no photos, so this run shows {people} generated people, with a small pack")
    print(f"trained on such faces and a ResNet-50 from random weights, tuned for {epochs} epochs. Put your")
    print("photos there, or set `dataset`.")
    photos = make(Path(processed) / "demo", people)
    others = strangers or str(make(Path(processed) / "demo" / "strangers", people, STRANGERS, high=3, low=1))
    return Run(photos, str(PACK), "none", epochs, pack_epochs, label="demo · ", strangers=others)


def _is_empty(folder: Path) -> bool:
    """Whether nothing of the user's is there. A link that leads nowhere is theirs: a drive may be missing."""
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return all(is_system_file(entry.name) or _is_readme(entry) for entry in folder.iterdir())


def _is_readme(path: Path) -> bool:
    return path.is_file() and path.stem.lower() == "readme"
