"""How each kind of start is fine-tuned: all settings, in one place."""

from dataclasses import dataclass, replace
from typing import Any

from src.networks.network import Origin


@dataclass(frozen=True)
class Settings:
    """How a network is fine-tuned; shares of the steps run from 0 at the first to 1 at the last."""

    # schedule
    epochs: int = 60  # passes over the training photos
    most_photos: int = 150  # of one person in a pass; of a person with more, each pass shows others
    batch_size: int = 32  # photos per step
    per_identity: int = 4  # photos of one person in a batch
    patience: int = 30  # epochs without a better validation AUC after which training stops
    seed: int = 0  # of everything that is drawn
    # optimiser: AdamW; the learning rate rises linearly, then falls along a cosine
    learning_rate: float = 2e-3  # at its peak
    backbone_rate: float = 1.0  # times learning_rate, for a backbone that starts from learnt weights
    try_rates: tuple[float, ...] | None = None  # of these, short trials on "val" choose backbone_rate
    trial: float = 0.15  # share of the epochs that each trial takes
    weight_decay: float = 0.05  # of matrices and kernels, not of norms
    warmup: float = 0.1  # share of the steps in which the learning rate rises
    clip: float = 5.0  # largest norm of the gradient
    averaging: float = 0.99  # decay, per step, of the running average of the weights; the average is kept
    # loss; a random network can't bear a margin, so it grows
    scale: float = 16.0  # of the cosines; low, as there are few people
    imprinting: bool = True  # classes start at the means of what the network, or its teacher, knows of them
    margin: float = 0.3  # taken off the cosine with the right identity, once fully there
    margin_from: float = 0.3  # share of the steps before the margin begins to grow
    margin_until: float = 0.6  # share of the steps after which it is fully there
    frozen: float = 0.0  # share of the backbone's weights, counted from the input, that stay as they are
    distillation: float = 5.0  # weight of 1 - cosine with the teacher's embedding, where there is a teacher
    nobody: float = 0.15  # photos of nobody known that a batch has on top, as a share of it; 0: none
    hints: float = 10.0  # weight of the difference to what the teacher sees in each place, see `hints`
    # what the training photos go through
    clean: float = 0.85  # share of the photos that is not degraded
    chance: float = 0.5  # that an effect acts on a photo that is
    jitter: float = 0.02  # misalignment: shift as a share of the side, zoom, turn in radians
    # machine
    bfloat16: bool = True  # mixed precision on machines that are faster with it


# By what is learnt already, see `kind_of`.
RECIPES = {
    # Nothing: random weights.
    "nothing": Settings(),
    # Photos of other things than faces: ImageNet, or a file. How much of it faces can use differs from file
    # to file, and a rate too low is the worst choice of all (benchmarks/README.md): so "val" chooses.
    "photos": Settings(try_rates=(0.3, 1.0)),
    # Faces, as a pack's own recogniser: it learns slowly and keeps its first layers.
    "faces": Settings(
        epochs=18,
        learning_rate=2.5e-4,
        weight_decay=0.01,
        scale=32.0,
        margin_from=0.0,
        margin_until=0.3,
        frozen=0.4,
        distillation=0.0,
        nobody=0.25,
        hints=0.0,
        clean=0.4,
        jitter=0.06,
    ),
}
PACK = RECIPES["faces"]


def kind_of(origin: Origin) -> str:
    """What a network of this origin has learnt already: "nothing", "photos" or "faces"."""
    if origin.knows_faces:
        return "faces"
    return "photos" if origin.learnt else "nothing"


def recipe(origin: Origin, **options: Any) -> Settings:
    """The settings for a network of this origin; options replace fields of theirs."""
    return replace(RECIPES[kind_of(origin)], **options)


# How long training may be: three numbers, so that a large set takes minutes on a CPU too.
SHOWN_ON_CPU = 40_000  # photos shown in a whole run, a photo as often as it is shown
SHOWN_ON_GPU = 1_000_000
LEAST_PASSES = 8  # however many photos a pass shows


def within_reach(settings: Settings, in_a_pass: int, on_gpu: bool) -> Settings:
    """The settings with no more passes than a run may have that shows so many photos in each."""
    shown = SHOWN_ON_GPU if on_gpu else SHOWN_ON_CPU
    return replace(settings, epochs=min(settings.epochs, max(LEAST_PASSES, round(shown / in_a_pass))))
