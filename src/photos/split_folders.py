"""Lays a split out as folders of photos, which a person can browse and any ImageFolder tool can read."""

import csv
import hashlib
import io
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import cv2
import pandas as pd
from tqdm.auto import tqdm

from src import artifacts
from src.photos import decoding
from src.photos.paths import open_path
from src.photos.splitting import SPLITS

_HEIC = {".heic", ".heif"}  # become JPEG in the split folders
MANIFEST = "manifest.csv"  # in each split folder: what is in it, and where it comes from
# torchvision's ImageFolder goes by these suffixes; what decodes the file goes by its contents.
_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # what file managers leave in a folder that was looked at
# Names that Windows keeps for itself.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def materialise(images: pd.DataFrame, folder: Path, out: Path) -> pd.DataFrame:
    """Lays the split out as folders, `out/<split>/<person>/<photo>`, which any ImageFolder tool can read.

    Photos are hard links into `folder`, copies where links fail, so never edit one: it may be the original.
    HEIC photos become JPEG. A photo's name is its quality, its own name and a few digits that keep it unique;
    `manifest.csv` in each folder tells where it comes from. A folder is complete or absent, and left alone
    where nothing changed.

    images: `splitting.split`'s table of the photos in `folder`; `path`, `identity`, `quality`, `sha256` and
    `split` are used.

    Returns, per split, `people`, `photos` and, in `made`, how: "linked", "1 linked, 2 copied" or "unchanged".
    Raises FileExistsError, before touching anything, where a folder of that name holds files it did not make,
    FileNotFoundError for a photo that has gone, and OSError where the disk is full; each in one sentence.
    """
    with artifacts.alone(Path(out) / "split_folders"):
        return _materialised(images[images["split"] != ""], Path(folder), Path(out))


def _materialised(used: pd.DataFrame, folder: Path, out: Path) -> pd.DataFrame:
    used = used[used["status"] == "ok"] if "status" in used else used
    names = _names(used)
    files = {name: pd.Series(dtype=object) for name in SPLITS}
    files |= {str(name): part for name, part in names.groupby(used["split"])}
    manifests = {name: _manifest(part, used) for name, part in files.items()}
    made = dict.fromkeys(SPLITS, "unchanged")
    stale = [name for name in SPLITS if not _is_current(out / name, manifests[name])]
    for leftover in (out / f"{name}.{kind}" for name in SPLITS for kind in ("partial", "old")):
        _check_ours(leftover)
        _discard(leftover)
    for name in stale:
        _check_ours(out / name)
    with tqdm(total=sum(len(files[name]) for name in stale), desc="split folders", unit=" photos") as bar:
        for name in stale:
            sources = (open_path(folder, path) for path in used.loc[files[name].index, "path"])
            made[name] = _build(out / f"{name}.partial", files[name], sources, manifests[name], bar)
    # All old folders go before any new one comes: folders of two splits must never stand side by side.
    for name in stale:
        if (out / name).exists():
            (out / name).rename(out / f"{name}.old")
    for name in stale:
        (out / f"{name}.partial").rename(out / name)
        _discard(out / f"{name}.old")
    counts = used.groupby("split").agg(people=("identity", "nunique"), photos=("path", "size"))
    return counts.reindex(list(SPLITS), fill_value=0).assign(made=pd.Series(made))


def _digits(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _plain(text: str, length: int) -> str:
    """The text without what some file system refuses in a name."""
    text = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]', "_", unicodedata.normalize("NFC", text))
    return text[:length].strip(" .")


def _names(used: pd.DataFrame) -> pd.Series:
    """`<person>/<photo>` for every row: unique on any file system, whatever it makes of case."""
    people = used["identity"].drop_duplicates()
    plain = people.map(lambda text: _plain(text, 60))
    twins = plain.str.casefold().duplicated(keep=False)
    changed = twins | (plain != people) | plain.map(lambda text: bool(_RESERVED.fullmatch(text)))
    persons = dict(zip(people, plain.where(~changed, plain + "_" + people.map(_digits)), strict=True))
    return pd.Series(
        [
            f"{persons[person]}/{_photo_name(path, quality)}"
            for path, person, quality in zip(used["path"], used["identity"], used["quality"], strict=True)
        ],
        index=used.index,
        dtype=object,
    )


def _photo_name(path: str, quality: str) -> str:
    name = PurePosixPath(path)
    known = name.suffix.lower() in _SUFFIXES
    stem, suffix = (name.stem, name.suffix.lower()) if known else (name.name, ".jpg")
    return f"{quality}_{_plain(stem, 40)}_{_digits(path)}{suffix}"


def _manifest(files: pd.Series, used: pd.DataFrame) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "path", "sha256"])
    rows = used.loc[files.index, ["path", "sha256"]]
    writer.writerows(sorted(zip(files, rows["path"], rows["sha256"], strict=True)))
    return text.getvalue()


def _listed(folder: Path) -> set[str]:
    """The files that the folder's manifest says were made there; empty without a manifest."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return set()
    with manifest.open(encoding="utf-8", newline="") as lines:
        return {row["file"] for row in csv.DictReader(lines)} | {MANIFEST}


def _present(folder: Path) -> Iterator[str]:
    """The files in the folder and below it: posix, Unicode NFC."""
    for where, _, names in os.walk(folder):
        start = Path(where).relative_to(folder)
        yield from (unicodedata.normalize("NFC", (start / name).as_posix()) for name in names)


def _is_current(folder: Path, manifest: str) -> bool:
    if not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_text(encoding="utf-8") != manifest:
        return False
    return _listed(folder) <= set(_present(folder))


def _check_ours(folder: Path) -> None:
    listed = _listed(folder)
    foreign = [name for name in _present(folder) if name not in listed and Path(name).name not in _LITTER]
    if foreign:
        raise FileExistsError(
            f"{folder} holds files that were not made here, such as {foreign[0]!r}: move them away, "
            "or choose another folder."
        )


def _discard(folder: Path) -> None:
    """Deletes the files that the folder's manifest lists, the manifest last, and the emptied folders."""
    listed = _listed(folder)
    present = [name for name in _present(folder) if name in listed or Path(name).name in _LITTER]
    for name in sorted(present, key=lambda name: name == MANIFEST):
        (folder / name).unlink()
    for where, _, _ in os.walk(folder, topdown=False):
        Path(where).rmdir()


def _build(folder: Path, files: pd.Series, sources: Iterator[Path], manifest: str, bar: tqdm) -> str:
    """Fills a new folder with links or copies of the sources; returns how."""
    copied = 0
    try:
        with artifacts.room_for("the split folders", folder.parent):
            folder.mkdir(parents=True)
            (folder / MANIFEST).write_text(manifest, encoding="utf-8", newline="\n")
            for person in {name.partition("/")[0] for name in files}:
                (folder / person).mkdir()
            for name, source in zip(files, sources, strict=True):
                if source.suffix.lower() in _HEIC:
                    _convert(source, folder / name)
                    copied += 1
                else:
                    copied += not _link(source, folder / name)
                bar.update()
    except OSError:
        _discard(folder)
        raise
    return f"{len(files) - copied} linked, {copied} copied" if copied else "linked"


def _convert(source: Path, target: Path) -> None:
    """Writes a HEIC photo, which few tools can read, as JPEG."""
    if not source.is_file():
        raise FileNotFoundError(f"{source} has gone since it was read: run again from the first stage.")
    pixels = cv2.cvtColor(decoding.read_rgb(source), cv2.COLOR_RGB2BGR)
    target.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def _link(source: Path, target: Path) -> bool:
    """Hard-links the file; copies it where that fails, and returns False."""
    try:
        # A link to a symbolic link may dangle; a read-only file, on Windows, could not be deleted here again
        # without touching the original.
        if os.name == "nt" and not os.access(source, os.W_OK):
            raise PermissionError
        target.hardlink_to(source.resolve() if source.is_symlink() else source)
        return True
    except FileExistsError:
        raise
    except OSError:
        if not source.is_file():
            raise FileNotFoundError(
                f"{source} has gone since it was read: run again from the first stage."
            ) from None
        shutil.copyfile(source, target)
        return False
