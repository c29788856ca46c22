"""Brings the photos of a study to the dataset folder: from a link, an archive or another folder."""

import itertools
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from sklearn import datasets
from tqdm.auto import tqdm

from src import artifacts
from src.photos import decoding, finding

MAXIMUM_UNPACKED = 200 * 2**30  # bytes
MAXIMUM_RATIO = 30  # photos are compressed already: an archive that grows more than this is a bomb

# What reading a damaged archive raises.
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
)  # fmt: skip


def fetch(source: str | Path, destination: Path, sha256: str | None = None) -> Path:
    """Brings photos to `destination`, laid out as `<person>/**/<file>`, and returns it.

    `source` is a link (Google Drive or any other; an interrupted download goes on where it was), a zip or
    tar archive, or a folder, which is copied. Folders around those of the people, as archives have, are
    left out: people are told by where the images lie. Archives are unpacked with care: no member may lead
    out of the folder, be a link or a device, or appear twice, and sizes are limited. `destination` must be
    empty or not exist; it appears complete or not at all.

    sha256: of the archive, 64 hex digits, where it is known.

    Raises FileNotFoundError where there is no such source, FileExistsError where `destination` holds
    something, ConnectionError (with the way to do it by hand) where a download fails, OSError where the disk
    is full, and ValueError where the archive is not the expected one, is damaged or unsafe, or has no images.
    """
    destination = Path(destination)
    if destination.exists() and any(destination.iterdir()):
        raise FileExistsError(f"{destination} is not empty: use it as it is, or move away what is in it.")
    work_folder = destination.parent / f".{destination.name}.fetching"
    work_folder.mkdir(parents=True, exist_ok=True)
    link = str(source) if re.match(r"https?://", str(source)) else None
    place = _download(link, work_folder / "download", destination) if link else Path(source)
    if not place.exists():
        raise FileNotFoundError(f"There is no archive or folder {place}.")
    unpacked_folder = work_folder / "unpacked"
    shutil.rmtree(unpacked_folder, ignore_errors=True)
    try:
        with artifacts.room_for("the photos", destination.parent):
            if place.is_dir():
                _copy(place / _people_folder(place), unpacked_folder)
                people_folder = unpacked_folder
            else:
                _check_sha256(place, sha256)
                _unpack(place, unpacked_folder)
                people_folder = unpacked_folder / _people_folder(unpacked_folder)
    except ValueError:
        if link:
            place.unlink()  # or the next attempt would go on with it
        raise
    except OSError:  # of a full disk above all: half of the photos are of no use
        shutil.rmtree(unpacked_folder, ignore_errors=True)
        raise
    if destination.exists():
        destination.rmdir()
    people_folder.rename(destination)
    shutil.rmtree(work_folder)
    return destination


def lfw() -> Path:
    """The folder of Labeled Faces in the Wild, `<person>/<file>`; scikit-learn downloads and checks it once.

    Raises ConnectionError where it is not there and can't be had, with what to put where.
    """
    folder = Path(datasets.get_data_home()) / "lfw_home" / "lfw_funneled"
    if not folder.is_dir():
        try:
            datasets.fetch_lfw_people(min_faces_per_person=100)  # checks the archive; few photos are read
        except OSError as error:
            raise ConnectionError(
                f"Labeled Faces in the Wild could not be downloaded ({error}): unpack lfw-funneled.tgz into "
                f'{folder.parent}, so that {folder} holds the people, or set strangers to "" or to a folder '
                "of other people's photos."
            ) from error
    return folder


def _download(link: str, archive: Path, destination: Path) -> Path:
    """Downloads to `archive`, going on where an earlier attempt stopped, and returns it."""
    import gdown  # slow to import, and needed for links only

    drive = re.search(r"drive\.google\.com/(?:file/d/|.*[?&]id=)([\w-]+)", link)
    try:
        if drive:
            gdown.download(id=drive[1], output=str(archive), resume=True)
        else:
            gdown.download(url=link, output=str(archive), resume=True)
    except Exception as error:  # gdown, requests and sockets each have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"{link} could not be downloaded ({reason}). Download it in a browser and give the path "
            f"of the archive instead of the link, or unpack it by hand to {destination}/<person>/."
        ) from error
    return archive


def _check_sha256(archive: Path, expected: str | None) -> None:
    if expected is None:
        return
    found = artifacts.sha256(archive)
    if found != expected.lower():
        raise ValueError(f"{archive} is not the expected archive: SHA-256 {found}, not {expected.lower()}.")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into a new folder: only regular files, only below it, up to a size."""
    limit = min(MAXIMUM_UNPACKED, max(MAXIMUM_RATIO * archive.stat().st_size, 2**30))
    total, seen = 0, set()
    try:
        with tqdm(desc="unpacking", unit="B", unit_scale=True) as bar:
            for name, content in _members(archive):
                path = _safe_path(name, archive)
                if path in seen:
                    raise ValueError(f"The archive {archive} holds {name!r} twice: unpack it by hand.")
                seen.add(path)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with content, (folder / path).open("xb") as file:
                    while block := content.read(2**20):
                        total += len(block)
                        if total > limit:
                            raise ValueError(
                                f"The archive {archive} unpacks to more than {limit / 2**30:.1f} GiB, which "
                                "photos do not: unpack it by hand, if you trust it, and give the folder."
                            )
                        file.write(block)
                        bar.update(len(block))
    except _DAMAGED as error:
        raise ValueError(f"The archive {archive} is damaged ({error}): download it again.") from error
    if not seen:
        raise ValueError(f"The archive {archive} is empty.")


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields names and contents of an archive's files. Raises ValueError for links and for no archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            for info in pack.infolist():
                if info.flag_bits & 1:
                    raise ValueError(
                        f"The archive {archive} has a password: unpack it by hand and give the folder."
                    )
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise _link_error(archive, info.filename)
                if not info.is_dir():
                    yield info.filename, pack.open(info)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tape:
            for member in tape:
                if not (member.isfile() or member.isdir()):
                    raise _link_error(archive, member.name)
                content = tape.extractfile(member)
                if content is not None:
                    yield member.name, content
    else:
        with archive.open("rb") as file:
            page = file.read(200).lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "neither a zip nor a tar archive"
        if page:
            what = "a web page, so the link does not lead to the file"
        raise ValueError(f"{archive} is {what}: download and unpack it by hand and give the folder.")


def _link_error(archive: Path, name: str) -> ValueError:
    return ValueError(
        f"The archive {archive} holds {name!r}, a link or a device: unpack it by hand, with care."
    )


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\x00" in name or not path.parts:
        raise ValueError(
            f"The archive {archive} holds {name!r}, which leads out of its folder: it is not unpacked."
        )
    return path


def _people_folder(folder: Path) -> str:
    """The folder (posix, below `folder`, "" for itself) that holds those of the people: above all images."""
    people = set()
    for file in finding.walk(folder):
        if finding.is_system_file(file.path) or not _begins_as_image(folder / file.path):
            continue
        *folders, _ = file.path.split("/")
        qualities = [i for i, name in enumerate(folders) if finding.quality_of([name]) != "unknown"]
        people.add(tuple(folders[: max(qualities, default=len(folders))]))
    if not people:
        raise ValueError(f"There are no images in {folder}.")
    pairs = zip(min(people), max(people), strict=False)  # what the first and the last share, all share
    common = tuple(name for name, other in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return "/".join(common[:-1] if common in people else common)


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return decoding.has_image_signature(file.read(32))
    except OSError:
        return False


def _copy(folder: Path, destination: Path) -> None:
    for file in tqdm(list(finding.walk(folder)), desc="copying", unit=" files"):
        if (folder / file.path).is_file():
            (destination / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / file.path, destination / file.path)
