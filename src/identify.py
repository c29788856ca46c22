"""Who is on a photo: the closest of the people one knows, how alike they are, and what the threshold says.

python -m src identify photo.jpg --pack processed_dataset/pack --gallery dataset/images
"""

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from src import artifacts
from src.limits import NotPossible
from src.networks.embedding import embed, unit_rows
from src.packs import choice
from src.packs import faces as face_finding
from src.packs import pack as packs
from src.packs.export import THRESHOLDS
from src.packs.faces import WHOLE
from src.packs.pack import Pack
from src.photos import cleaning, decoding, finding
from src.photos.formats import UnusableImage
from src.photos.paths import open_path

MOST = 3  # of the closest people are told
# colours of boxes, RGB
_KNOWN, _NOBODY, _UNDECIDED, _POOR = (30, 140, 60), (200, 40, 40), (60, 90, 200), (110, 110, 110)


class Tool(NamedTuple):
    """A pack, and from which score on a face is somebody's; None where no threshold was calibrated.

    Where embeddings carry a score of how much a face shows as their length, `limit` is the length below which
    it is too poor to tell, and templates weigh photos by it; else None.
    """

    pack: Pack
    threshold: float | None
    chosen: str  # how, to be told
    known: int  # with how many people known; 0 where it does not depend on it
    limit: float | None = None


class Gallery(NamedTuple):
    """The people one knows; row i of `templates` [K, D] is the mean of one's embeddings, made a unit row."""

    people: tuple[str, ...]
    templates: np.ndarray


@dataclass(frozen=True)
class Face:
    """One face of a photo: its box (left, top, right, bottom, pixels) and the closest people, best first."""

    box: tuple[float, float, float, float]
    closest: tuple[tuple[str, float], ...]
    known: bool | None  # whether the closest is near enough; None where there is no threshold
    length: float = np.nan  # of the embedding
    poor: bool = False  # whether the face shows too little to tell: then nobody is told to be on it


def load(folder: Path | str) -> Tool:
    """A pack to identify with: one of ours, with its thresholds, or any other.

    The threshold is that of one photo against everybody known, where the card has one, else that of two
    photos. Raises FileNotFoundError where there is no such pack, ValueError where it is damaged.
    """
    loaded = packs.load(folder)
    file = loaded.folder / THRESHOLDS
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    limit = (kept.get("too_poor") or {}).get("length")
    if people := kept.get("people"):
        chosen = f"at most {people['target_fpir']:.0%} of strangers' photos taken for somebody, on val"
        return Tool(loaded, people["threshold"], chosen, kept["known"], limit)
    if pairs := kept.get("pairs"):
        chosen = f"a false accept rate of {pairs['target_far']:.1%} between two photos, on val"
        return Tool(loaded, pairs["threshold"], chosen, 0, limit)
    return Tool(loaded, None, "", 0, limit)


# ---------------------------------------------------------------- the people one knows


def gallery_of(embeddings: np.ndarray, faces: pd.DataFrame, split: str = "train") -> Gallery:
    """The people of a split, by embeddings [N, D] of faces (`identity`, `split`), row by row.

    A longer embedding counts for more in a person's mean. Raises NotPossible where nobody is in the split, or
    has an embedding.
    """
    rows = (faces["split"] == split).to_numpy() & np.isfinite(embeddings[:, 0])
    return Gallery(*_templates(np.array(embeddings[rows]), faces["identity"].to_numpy()[rows]))


def gallery(folder: Path | str, tool: Tool, keep: Path) -> Gallery:
    """The people of a folder of photos, laid out as a dataset: a folder per person, or as `finding` says.

    Photos are cleaned, and faces found and chosen, as those of the dataset were; embeddings stay in `keep`,
    and are computed again only where photos or pack have changed. Where embeddings carry a score, a photo
    counts for as much as it shows. Who has no photo with a face is left out, which is printed. Raises as
    `finding.find` does, and NotPossible where nobody has one.
    """
    images = artifacts.cached(keep / "clean.parquet", cleaning.clean, finding.find(folder), Path(folder))
    stored = (keep / "faces.parquet", keep / "embeddings.npy")
    found, embeddings = artifacts.cached(
        stored, _of_photos, images, Path(folder), tool.pack, tool.limit is None
    )
    lost = sorted(set(images["identity"]) - set(found["identity"]) - {""})
    if lost:
        print(
            f"no face in any photo of {len(lost)} people: {', '.join(lost[:5])}{', ...' if lost[5:] else ''}"
        )
    return Gallery(*_templates(embeddings, found["identity"].to_numpy()))


@artifacts.uses(images=("path", "sha256", "status", "identity", "group"))
def _of_photos(
    images: pd.DataFrame, folder: Path, pack: Pack, unit: bool, *, workspace: Path
) -> tuple[pd.DataFrame, np.ndarray]:
    """Whose each photo with a face is, and what the pack gives for it, rows [N, D], perhaps unit ones."""
    together = images.assign(split="gallery")
    candidates, crops = face_finding.every_face(together, folder, pack, workspace=workspace)
    embeddings = embed(crops, pack, unit=unit)
    found, _ = choice.choose(candidates, crops, unit_rows(embeddings), together)
    seen = (found["found"] != WHOLE).to_numpy()
    usable = together[together["status"] == "ok"].reset_index(drop=True)
    return usable.loc[seen, ["path", "identity"]].reset_index(drop=True), embeddings[found["candidate"][seen]]


def _templates(embeddings: np.ndarray, identity: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    if not len(embeddings):
        raise NotPossible("nobody is known: there is no photo with a face to compare with")
    people, labels = np.unique(identity, return_inverse=True)
    sums = np.zeros((len(people), embeddings.shape[1]))
    np.add.at(sums, labels, embeddings)
    return tuple(map(str, people)), unit_rows(sums).astype(np.float32)


# ---------------------------------------------------------------- one photo


def ask(photo: Path | str, tool: Tool, known: Gallery, most: int = MOST) -> list[Face]:
    """The faces of a photo, the likeliest first, each with the `most` closest people; empty: no face found.

    Raises FileNotFoundError where there is no such photo, ValueError, naming it, where it can't be read or
    where the gallery is of another pack.
    """
    found = [row for row in face_finding.find_faces(read(photo), tool.pack) if row[0]["found"] != WHOLE]
    if not found:
        return []
    vectors = embed(np.stack([crop for _, crop in found]), tool.pack, unit=False)
    lengths, vectors = np.linalg.norm(vectors, axis=1), unit_rows(vectors)
    if vectors.shape[1] != known.templates.shape[1]:
        raise ValueError(
            f"the people known have embeddings of {known.templates.shape[1]} numbers, and the pack gives "
            f"{vectors.shape[1]}: embed them again with this pack"
        )
    answers = []
    for (row, _), scores, length in zip(found, vectors @ known.templates.T, lengths.tolist(), strict=True):
        best = np.argsort(-scores)[:most]
        closest = tuple((known.people[person], float(scores[person])) for person in best)
        near = None if tool.threshold is None else closest[0][1] >= tool.threshold
        poor = tool.limit is not None and length < tool.limit
        box = (row["left"], row["top"], row["right"], row["bottom"])
        answers.append(Face(box, closest, near, length, poor))
    return answers


def read(photo: Path | str) -> np.ndarray:
    """A photo, upright, uint8 [H, W, 3] RGB; errors as of `ask`."""
    photo = Path(photo)
    if not photo.is_file():
        raise FileNotFoundError(f"there is no photo {photo}")
    try:
        return decoding.read_rgb(photo)
    except UnusableImage as error:
        reason = error.reason.removeprefix(f"{photo}: ")
        raise ValueError(f"{photo} can't be read as a photo: {reason}") from error


def in_words(
    answers: Sequence[Face] | NotPossible, tool: Tool | NotPossible, known: Gallery | NotPossible
) -> str:
    """What there is to say of a photo, a line for each face, as a list in Markdown."""
    for given in (tool, known, answers):
        if isinstance(given, NotPossible):
            return str(given)
    assert isinstance(tool, Tool) and isinstance(known, Gallery) and not isinstance(answers, NotPossible)
    if not answers:
        return "No face was found in this photo: nobody can be told."
    lines = [f"{len(answers)} faces were found; each has its own answer."] if len(answers) > 1 else []
    for number, face in enumerate(answers, 1):
        name, score = face.closest[0]
        where = f"Face {number}: " if len(answers) > 1 else ""
        if face.poor:
            said = f"**too poor to tell**: the face shows too little (length {face.length:.2f}, "
            said += f"{tool.limit:g} is needed); a larger or sharper photo would do"
        elif face.known is None:
            said = f"closest is **{name}** ({score:.3f}); this pack has no calibrated threshold to decide by"
        elif face.known:
            said = f"**{name}** ({_against(score, tool.threshold)})"
        else:
            said = f"**nobody known**: the closest, {name}, is not close enough "
            said += f"({_against(score, tool.threshold)})"
        others = ", ".join(f"{other} {value:.3f}" for other, value in face.closest[1:] if not face.poor)
        lines.append(f"- {where}{said}." + (f" Then: {others}." if others else ""))
    if tool.threshold is not None:
        among = f" with the {tool.known} people in training" if tool.known else ""
        lines.append(f"- The threshold was chosen{among} for {tool.chosen}.")
    if tool.known and len(known.people) > 2 * tool.known:
        lines.append(
            f"- With {len(known.people)} people known, more strangers are taken for somebody than with "
            f"{tool.known}."
        )
    return "\n".join(lines)


def _against(score: float, threshold: float | None) -> str:
    """A score and the threshold, to so many digits that one sees which is the higher."""
    digits = 3 if threshold is None or abs(score - threshold) >= 1e-3 else 6
    return f"{score:.{digits}f}, threshold {threshold:.{digits}f}"


def drawn(photo: np.ndarray, answers: Sequence[Face]) -> Image.Image:
    """The photo, uint8 [H, W, 3] RGB, with each face's box and answer.

    Green: known, red: nobody known, grey: too poor to tell, blue: no threshold to decide by.
    """
    image = Image.fromarray(photo)
    if max(image.size) < 480:  # a label would cover a small photo
        scale = 480 / max(image.size)
        image = image.resize([round(side * scale) for side in image.size])
    else:
        scale = 1.0
    draw, line = ImageDraw.Draw(image), max(2, max(image.size) // 300)
    font = ImageFont.load_default(max(14, max(image.size) // 45))
    for number, face in enumerate(answers, 1):
        name, score = face.closest[0]
        colour = _UNDECIDED if face.known is None else _KNOWN if face.known else _NOBODY
        text = "nobody known" if face.known is False else f"{name} {score:.2f}"
        if face.poor:
            colour, text = _POOR, "too poor to tell"
        text = f"{number}: {text}" if len(answers) > 1 else text
        left, top, right, bottom = (scale * side for side in face.box)
        draw.rectangle((left, top, right, bottom), outline=colour, width=line)
        _, _, width, height = draw.textbbox((0, 0), text, font=font)
        x = min(max(left, 0), max(image.width - width - 8, 0))
        y = top - height - 8 if top - height - 8 >= 0 else min(bottom + 4, image.height - height - 8)
        draw.rectangle((x, y, x + width + 8, y + height + 8), fill=colour)
        draw.text((x + 4, y + 2), text, fill="white", font=font)
    return image


# ---------------------------------------------------------------- in the notebook, and in a shell


def example(faces: pd.DataFrame, folder: Path | str, photo: str = "") -> Path:
    """The photo asked for; "" is a test photo of the set, of somebody in training where there is one."""
    if photo:
        return finding.place(photo)
    for split in ("test_seen", "test_unseen", "val"):
        shown = faces[(faces["split"] == split) & (faces["found"] != WHOLE)]
        if len(shown):
            return open_path(folder, shown.sort_values("eye_distance")["path"].iloc[-1])
    return open_path(folder, faces["path"].iloc[0])


def shown(photo: Path, answers: Sequence[Face] | NotPossible) -> Image.Image | NotPossible:
    """The photo with the answers drawn on it, at most 900 pixels wide or high; or why there are none."""
    if isinstance(answers, NotPossible):
        return answers
    image = drawn(read(photo), answers)
    image.thumbnail((900, 900))
    return image


def main(arguments: Sequence[str]) -> None:
    """`python -m src identify ...`: prints who is on a photo, and writes the photo with the answers on it.

    Raises as `load`, `gallery` and `ask` do.
    """
    parser = argparse.ArgumentParser("python -m src identify", description="Who is on a photo?")
    parser.add_argument("photo", type=Path)
    parser.add_argument(
        "--pack", default="processed_dataset/pack", help="an InsightFace pack: folder or name"
    )
    parser.add_argument(
        "--gallery", type=Path, default=Path("dataset/images"), help="a folder per person known"
    )
    parser.add_argument("--out", type=Path, help="where the photo with the answers goes")
    parser.add_argument("--most", type=int, default=MOST, help="how many of the closest people are told")
    given = parser.parse_args(arguments)
    photo = read(given.photo)  # before anything that takes long
    tool = load(given.pack)
    beside = tool.pack.folder.parent
    digest = hashlib.sha256(str(given.gallery.resolve()).encode()).hexdigest()[:8]
    kept = re.sub(r"[^\w-]+", "-", given.gallery.name) + f"-{digest}"
    known = gallery(given.gallery, tool, beside / "galleries" / kept)
    answers = ask(given.photo, tool, known, max(1, given.most))
    print(in_words(answers, tool, known).replace("**", ""))
    out = given.out or beside / "identified" / f"{given.photo.stem}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    with artifacts.room_for(out.name, out.parent), artifacts.whole(out) as draft:
        drawn(photo, answers).save(draft)
    print(f"Drawn: {out}")
