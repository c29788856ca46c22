"""Hints: a student learns what its teacher sees in each place of a photo (FitNets, Romero et al. 2015).

An embedding says one thing of a photo, a feature map one of each place in it: from few photos that teaches
more. The teacher looks at each photo once, and at its mirror image; what it saw is then moved as the photo is
moved for the student.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from src.networks import embedding
from src.networks.network import FaceNetwork

STAGES = ("layer2", "layer3", "layer4")  # of a student, those that get hints
SIDES = (8, 4, 2)  # places a side of the hints for each; as many as these stages have of 64 pixels
COMPONENTS = 64  # of a teacher's map that are kept: the directions in which it varies most
MOST = 4000  # photos with hints; those beyond do without, so that the teacher's looking takes minutes
_SAMPLE = 128  # photos by which a map's channels are brought to one scale


@dataclass(frozen=True)
class Hints:
    """What the teacher saw. For each stage half precision [2, n, C, s, s]: of photos, of mirror images.

    C is `COMPONENTS` at most, s one of `SIDES`; numbers have mean 0 and variance about 1. row: int64 [n], the
    photo's position among those that are trained on.
    """

    maps: list[Tensor]
    row: np.ndarray


def stages(student: FaceNetwork) -> list[nn.Module]:
    """The parts of a ResNet that get hints; none of another network."""
    parts = dict(student.backbone.named_modules())
    found = [name for name in parts if name.rsplit(".", 1)[-1] in STAGES]
    return [parts[name] for name in sorted(found)] if len(found) == len(STAGES) else []


def watched(teacher: FaceNetwork, crops: np.ndarray) -> list[Tensor]:
    """For each stage of a student what the teacher sees of crops uint8 [B, 112, 112, 3]: float [B, C, s, s].

    The last stages of face networks halve the side of their maps, whatever their architecture. A student's
    last two stages get the smallest map, the one before gets the next larger; of a size, the last map counts.
    Empty where the teacher has no such maps.
    """
    last: dict[int, Tensor] = {}

    def note(part: nn.Module, given: object, result: object) -> None:
        if isinstance(result, Tensor) and result.ndim == 4 and result.shape[-1] == result.shape[-2]:
            last[result.shape[-1]] = result

    parts = [part for part in teacher.backbone.modules() if not list(part.children())]
    handles = [part.register_forward_hook(note) for part in parts]
    try:
        embedding.embed(crops, teacher)
    finally:
        for handle in handles:
            handle.remove()
    sides = sorted(side for side in last if 1 < side < crops.shape[1])[:2]
    if not sides:
        return []
    return [
        _resized(last[side].float(), most)
        for side, most in zip((sides[-1], sides[0], sides[0]), SIDES, strict=True)
    ]


def give(teacher: FaceNetwork, crops: np.ndarray, rows: np.ndarray, seed: int = 0) -> Hints | None:
    """The teacher's hints for the photos `rows` of crops uint8 [N, 112, 112, 3]; None where it has none.

    A map's channels are brought to mean 0 and variance 1, and of what they say together the `COMPONENTS`
    principal components are kept.
    """
    order = np.random.default_rng(seed).permutation(len(rows))[:MOST]
    bases = [_basis(maps) for maps in watched(teacher, np.array(crops[rows[order[:_SAMPLE]]]))]
    if not bases:
        return None
    parts: list[list[Tensor]] = [[] for _ in bases]
    for start in tqdm(range(0, len(order), 64), "hints", leave=False):
        some = np.array(crops[rows[order[start : start + 64]]])
        both = [watched(teacher, np.ascontiguousarray(view)) for view in (some, some[:, :, ::-1])]
        for part, (shift, basis), seen, mirrored in zip(parts, bases, *both, strict=True):
            views = [torch.einsum("nchw,cp->nphw", maps - shift, basis).half() for maps in (seen, mirrored)]
            part.append(torch.stack(views).cpu())
    return Hints([torch.cat(part, 1) for part in parts], order)


class Follower(nn.Module):
    """The student's way to the hints: of each stage a 1x1 convolution to the teacher's maps.

    `forward` takes the photos' positions among those that are trained on and how they were moved, float
    [B, 2, 3] as of `affine_grid`, after the student has looked at them; it returns the mean squared
    difference to the hints, about 1 for a student that knows nothing; 0 where none of the photos has hints.
    """

    def __init__(self, student: FaceNetwork, hints: Hints) -> None:
        super().__init__()
        self.hints = hints
        self.place = {int(row): i for i, row in enumerate(hints.row)}
        self.seen: dict[int, Tensor] = {}
        widths = []
        for i, stage in enumerate(stages(student)):
            stage.register_forward_hook(lambda part, given, result, i=i: self.seen.__setitem__(i, result))
            widths.append([part for part in stage.modules() if isinstance(part, nn.BatchNorm2d)][-1])
        self.adaptors = nn.ModuleList(
            nn.Conv2d(width.num_features, maps.shape[2], 1)
            for width, maps in zip(widths, hints.maps, strict=True)
        )

    def forward(self, batch: np.ndarray, moved: Tensor) -> Tensor:
        hinted = [i for i, row in enumerate(batch) if int(row) in self.place]
        if not hinted:
            return moved.new_zeros(())
        losses = []
        told = self.told(batch[hinted], moved[hinted])
        for i, (adaptor, hint) in enumerate(zip(self.adaptors, told, strict=True)):
            said = self.seen[i][hinted].float()
            side = min(said.shape[-1], hint.shape[-1])
            hint = _resized(hint, side).to(said.device)
            losses.append(F.mse_loss(adaptor(_resized(said, side)).float(), hint))
        return torch.stack(losses).mean()

    def told(self, batch: np.ndarray, moved: Tensor) -> list[Tensor]:
        """The hints for photos that have some, moved as they are: for each stage float [B, C, s, s]."""
        # of a mirrored photo, the teacher has seen the mirror image: what is left is to turn and to shift it
        mirrored = torch.linalg.det(moved[:, :, :2]) < 0
        left = torch.cat([torch.where(mirrored, -1, 1)[:, None, None] * moved[:, :1], moved[:, 1:]], 1)
        which, places = mirrored.long().cpu(), torch.tensor([self.place[int(row)] for row in batch])
        told = []
        for maps in self.hints.maps:
            hint = maps[which, places].to(moved.device).float()
            grid = F.affine_grid(left, list(hint.shape), align_corners=False)
            told.append(F.grid_sample(hint, grid, padding_mode="border", align_corners=False))
        return told


def _basis(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Of maps [B, C, s, s] the mean [C, 1, 1], and the matrix [C, P] that gives components of the rest."""
    rows = maps.permute(0, 2, 3, 1).flatten(0, 2)
    scale = rows.std(0).clamp_min(1e-3)
    unit = (rows - rows.mean(0)) / scale
    spread, axes = torch.linalg.eigh(unit.T @ unit / len(unit))
    spread, axes = spread[-COMPONENTS:], axes[:, -COMPONENTS:]
    basis = axes / scale[:, None] / spread.mean().sqrt().clamp_min(1e-6)
    return rows.mean(0)[:, None, None], basis


def _resized(maps: Tensor, most: int) -> Tensor:
    """Maps [B, C, h, w] with no more than `most` places a side."""
    if maps.shape[-1] <= most:
        return maps
    return F.interpolate(maps, size=(most, most), mode="bilinear", antialias=True, align_corners=False)
