"""The files of an InsightFace pack: found, downloaded, verified, unpacked.

A pack is a folder of ONNX files. InsightFace publishes packs as zips; those in PUBLISHED are verified by
their SHA-256.
"""

import contextlib
import errno
import io
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from insightface.utils.download import download_file
from insightface.utils.storage import model_zoo_download_url

from src import artifacts

PROJECT = Path(__file__).parents[2]
HOME = Path("~/.insightface/models")  # where InsightFace itself keeps packs


@dataclass(frozen=True)
class Archive:
    """A pack as InsightFace publishes it: its zip's size in bytes and SHA-256, and SHA-256 of files in it."""

    size: int
    sha256: str
    files: dict[str, str]


PUBLISHED = {
    "buffalo_l": Archive(
        size=288_621_354,
        sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        files={
            "det_10g.onnx": "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            "w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        },
    )
}


def find(pack: str | Path, root: Path | str | None = None) -> tuple[Path, dict[str, str]]:
    """Finds a pack; returns its folder and the SHA-256 of each of its files, by name.

    pack: a folder of ONNX files, or a name, looked for in `models` below `root`. Without a root, a name is
    looked for in `models` in the project and beside it, in the project and beside it, then in
    ~/.insightface/models. A pack in PUBLISHED is verified, unpacked where only its zip is there, and
    downloaded to the last of these places where there is nothing.

    Raises FileNotFoundError where there is no such pack, ValueError where a published one is not what
    InsightFace publishes, OSError where the disk is full.
    """
    folder = _folder(pack, root)
    digests = _digests(folder)
    if folder.name in PUBLISHED and _faults(folder.name, digests):
        archive = folder.with_name(f"{folder.name}.zip")  # InsightFace leaves it there
        if archive.is_file():
            print(f"{folder} is not whole, unpacking {archive.name} again")
            digests = _digests(_unpack(archive))
        if faults := _faults(folder.name, digests):
            raise ValueError(
                f"The pack in {folder} is not whole, as an interrupted download or unpacking leaves it: "
                f"{'; '.join(faults)}. Delete the folder and run again."
            )
    return folder, digests


def _folder(pack: str | Path, root: Path | str | None) -> Path:
    name, direct = str(pack), Path(pack).expanduser()
    if root is not None:
        places = [Path(root).expanduser() / "models"]
    else:
        parent = PROJECT.parent
        places = [PROJECT / "models", parent / "models", PROJECT, parent, HOME.expanduser()]
    for folder in [direct, *(place / name for place in places)]:
        if _has_models(folder / folder.name) and not _has_models(folder):
            folder /= folder.name  # some zips hold a folder of the pack's name within it
        # A folder in the working directory that happens to have the name is none unless it holds models.
        if _has_models(folder) or (folder.is_dir() and (folder != direct or len(direct.parts) > 1)):
            return folder.resolve()
        archive = folder.with_name(f"{folder.name}.zip")
        if folder.name in PUBLISHED and archive.is_file():
            return _unpack(archive)
    if name in PUBLISHED:
        return _download(name, places)
    raise FileNotFoundError(
        f"There is no pack {name}: no such folder, and none of that name in {_listed(places)}. "
        "Give the folder of the pack's ONNX files, or put it in one of these."
    )


def _has_models(folder: Path) -> bool:
    return any(folder.glob("*.onnx"))


def _listed(places: list[Path]) -> str:
    return ", ".join(map(str, places))


def _download(name: str, places: list[Path]) -> Path:
    """Fetches a published zip to the last of the places, by InsightFace's own means, and unpacks it there."""
    published, url = PUBLISHED[name], model_zoo_download_url(f"{name}.zip")
    archive = places[-1] / f"{name}.zip"
    print(f"downloading {url} ({published.size / 1e6:.0f} MB) to {archive.parent}")
    try:
        with (
            artifacts.room_for(archive.name, archive.parent),
            artifacts.whole(archive) as partial,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            download_file(url, path=str(partial), overwrite=True)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise FileNotFoundError(
            f"The pack {name} is not on this computer and could not be downloaded ({type(error).__name__}): "
            f"put {name}.zip ({published.size:,} bytes, SHA-256 {published.sha256}) from {url} into one of "
            f"{_listed(places)}, and run again."
        ) from error
    return _unpack(archive)


def _unpack(archive: Path) -> Path:
    """Verifies a published zip, unpacks its ONNX files to a folder beside it, which appears when whole."""
    name, size = archive.stem, archive.stat().st_size
    published = PUBLISHED[name]
    if size != published.size or artifacts.sha256(archive) != published.sha256:
        raise ValueError(
            f"{archive} is not the file that InsightFace publishes, or its download was cut off: it has "
            f"{size:,} bytes, and {published.size:,} with SHA-256 {published.sha256} are expected. Delete "
            f"it, and download {model_zoo_download_url(archive.name)} or run again."
        )
    target = archive.with_suffix("")
    with (
        artifacts.room_for(f"the pack {name}", archive.parent),
        tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{name}-") as draft,
    ):
        folder = Path(draft) / name
        folder.mkdir()
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                # By its last name alone: no path in a zip decides where something is written.
                file = folder / Path(member.filename).name
                if file.suffix == ".onnx":
                    with members.open(member) as source, file.open("wb") as copied:
                        shutil.copyfileobj(source, copied)
        if target.is_dir():
            for file in folder.iterdir():
                file.replace(target / file.name)
        else:
            folder.replace(target)
    return target


def _digests(folder: Path) -> dict[str, str]:
    files = [*sorted(folder.glob("*.onnx")), *folder.glob("manifest.json")]
    return {file.name: artifacts.sha256(file) for file in files}


def _faults(name: str, digests: dict[str, str]) -> list[str]:
    """What is wrong with the files of a published pack."""
    return [
        f"{file} is {'not the one that InsightFace publishes' if file in digests else 'missing'} "
        f"(SHA-256 {expected} is expected)"
        for file, expected in PUBLISHED[name].files.items()
        if digests.get(file) != expected
    ]
