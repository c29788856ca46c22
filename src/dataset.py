"""The photos as they lie on disk: what a folder holds, how a file is decoded, how data is fetched.

The folder is only ever read. `find` lists it, `read_rgb` is the one decoder of the project, `fetch` brings
an archive or a folder into `dataset/images`.
"""

import errno
import hashlib
import io
import itertools
import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import cv2
import numpy as np
import pandas as pd
import simplejpeg
from PIL import Image, ImageOps
from tqdm.auto import tqdm

MAXIMUM_PIXELS = 100_000_000  # takes 300 MB once decoded; more is held for a decompression bomb
# Formats that photos come in. Pillow knows more, among them some that start other programs (EPS) or have no
# signature (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")

_QUALITIES = {
    "high": "high", "highquality": "high", "hq": "high", "highres": "high",
    "low": "low", "lowquality": "low", "lq": "low", "lowres": "low",
}  # fmt: skip
_SYSTEM = re.compile(r"(^|/)(\.|(thumbs\.db|ehthumbs\.db|desktop\.ini|__macosx|icon\r)(/|$))", re.IGNORECASE)


class UnusableImage(ValueError):  # noqa: N818 - the name says what the caller holds
    """A file that gives no photo. `status` is a word for the table, `reason` a sentence for the reader."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status, self.reason = status, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.status, self.reason)


# --------------------------------------------------------------------------------------------------------
# What is in the folder


def find(folder: Path) -> pd.DataFrame:
    """Lists every file below `folder`, laid out as `<person>/**/<file>`: one row each, sorted by `path`.

    Suffixes are not looked at, and nothing is left out: cleaning decides from the content. Links to files
    and to folders are followed; a link to a folder that is being walked already (a loop), a broken link and
    a folder that can't be opened have a row of their own, as have pipes and other files that are not
    regular.

    Columns: `path` (posix, relative to `folder`), `identity` (the first folder's name, Unicode NFC; "" for
    files that lie in no person's folder), `quality` ("high" or "low" by the nearest folder of that name:
    any case, spaces, dashes or underscores, also `hq`, `lq`; else "unknown"), `bytes`, `modified_ns` (0
    where there is nothing to stat).

    Raises FileNotFoundError or NotADirectoryError where there is no such folder, ValueError where it holds
    no file at all.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(
            f"There is no dataset folder {folder}: give a folder with one subfolder per person."
        )
    if not folder.is_dir():
        raise NotADirectoryError(
            f"The dataset {folder} is a file: give a folder with one subfolder per person."
        )
    rows = []
    for path, size, modified in tqdm(_walk(folder), desc="finding images", unit=" files", leave=False):
        # Names that are not valid Unicode can't be stored; cleaning reports that the escaped name leads
        # nowhere.
        path = path.encode("utf-8", "backslashreplace").decode()
        *folders, _ = path.split("/")
        rows.append((path, _identity(folders), _quality(folders[1:]), size, modified))
    if not rows:
        raise ValueError(
            f"The dataset folder {folder} holds no files: put one subfolder of photos per person there."
        )
    images = pd.DataFrame(rows, columns=["path", "identity", "quality", "bytes", "modified_ns"])
    images = images.astype({"bytes": "int64", "modified_ns": "int64"})
    return images.sort_values("path", ignore_index=True)


def _identity(folders: list[str]) -> str:
    # macOS stores é as e + accent: without NFC one person's two folders could be two people.
    return unicodedata.normalize("NFC", folders[0]) if folders else ""


def _quality(folders: list[str]) -> str:
    for name in reversed(folders):
        quality = _QUALITIES.get(re.sub(r"[\s_-]+", "", name.lower()))
        if quality:
            return quality
    return "unknown"


def _walk(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yields posix path, size (bytes) and modification time (ns) of all that is no folder, in any order."""
    top = folder.stat()
    stack = [("", frozenset({(top.st_dev, top.st_ino)}))]
    while stack:
        below, above = stack.pop()
        try:
            entries = list(os.scandir(folder / below))
        except OSError:
            yield below, 0, 0
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            try:
                status = entry.stat()
                if not stat.S_ISDIR(status.st_mode):
                    yield path, status.st_size, status.st_mtime_ns
                    continue
                status = Path(entry.path).stat()  # on Windows, entries do not know which folder they are
            except OSError:
                yield path, 0, 0
                continue
            place = (status.st_dev, status.st_ino)
            if place in above:
                yield path, 0, 0
            else:
                stack.append((path, above | {place}))


def is_system_file(path: str) -> bool:
    """Tells what systems leave behind (`Thumbs.db`, `.DS_Store`, `__MACOSX/*`, hidden files) from photos."""
    return _SYSTEM.search(path) is not None


# --------------------------------------------------------------------------------------------------------
# The decoder


def read_rgb(path: Path, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes a photo to uint8 `[H, W, 3]`, RGB, 0-255, upright: the one decoder of the project.

    Raises UnusableImage, a ValueError, with the reason; OSError where the file can't be read.
    """
    try:
        return decode(Path(path).read_bytes(), maximum_pixels)
    except UnusableImage as error:
        raise UnusableImage(error.status, f"{path}: {error.reason}") from error


def decode(data: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes an image file's bytes, to the last one, to uint8 `[H, W, 3]`, RGB, 0-255, upright.

    EXIF orientation is applied. Grey, palette and CMYK images become RGB; 16-bit ones keep their upper
    eight bits; transparent pixels show white; of animated images the first frame counts. The strictest
    reading decides: what libjpeg warns of is an error here (OpenCV passes over it and hands back a half
    grey picture, as does Pillow where the end marker is in place), and so are wrong PNG checksums, and what
    OpenCV refuses. The size is judged before anything is decoded.

    Raises UnusableImage with status "not an image", "truncated", "unreadable" or "too large".
    """
    pixels = _decode_jpeg(data, "RGB", maximum_pixels)
    return _decode_other(data, maximum_pixels) if pixels is None else pixels


def decode_luma(data: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes as `decode` does, as strictly, but to luma (ITU-R BT.601), uint8 `[H, W]`.

    A JPEG's luma is stored as such: its colours are read through, but not worked out, which saves a third
    of the time.
    """
    luma = _decode_jpeg(data, "GRAY", maximum_pixels)
    return cv2.cvtColor(_decode_other(data, maximum_pixels), cv2.COLOR_RGB2GRAY) if luma is None else luma


def _decode_jpeg(data: bytes, colours: str, maximum_pixels: int) -> np.ndarray | None:
    """Decodes with libjpeg-turbo, strictly; None for what is no JPEG, or one of a kind that Pillow alone
    can read."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    try:
        height, width, coded, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        _check_size(width, height, maximum_pixels)
        if coded not in ("YCbCr", "RGB", "Gray"):
            return None
        pixels = simplejpeg.decode_jpeg(data, colours, strict=True)
    except UnusableImage:
        raise
    except KeyError:  # a sampling of colours that libjpeg-turbo's simple interface does not know
        return None
    except ValueError as error:
        if not _is_padding(data, str(error)):
            raise _jpeg_error(data, str(error)) from error
        pixels = simplejpeg.decode_jpeg(data, colours, strict=False)
    if colours == "GRAY":
        pixels = pixels[:, :, 0]
    orientation = _jpeg_orientation(data)
    return pixels if orientation == 1 else _upright(pixels, orientation)


def _jpeg_error(data: bytes, message: str) -> UnusableImage:
    ended_early = "premature end" in message.lower() or b"\xff\xd9" not in data
    return UnusableImage("truncated" if ended_early else "unreadable", message)


def _is_padding(data: bytes, message: str) -> bool:
    """Some cameras pad the picture's data with equal bytes before the end marker: nothing is missing then."""
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", message)
    end = data.rfind(b"\xff\xd9")
    return found is not None and len(set(data[end - int(found[1]) : end])) == 1


def _jpeg_orientation(data: bytes) -> int:
    # Only a file that has EXIF data pays for having it parsed.
    if data.find(b"Exif\x00\x00", 0, 65536) < 0:
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return image.getexif().get(0x0112, 1)
        except Exception:  # damaged EXIF data says nothing about the picture
            return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors as the EXIF orientation 1-8 says; other values change nothing."""
    if orientation in (2, 5, 7, 4):
        pixels = pixels[:, ::-1]
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _decode_other(data: bytes, maximum_pixels: int) -> np.ndarray:
    if not data:
        raise UnusableImage("unreadable", "the file is empty")
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        raise UnusableImage("unreadable", "a HEIC photo, which is not supported: convert it to JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what is raised or judged here
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size, maximum_pixels)
                _check_end(image, data)
                pixels = np.asarray(_rgb(ImageOps.exif_transpose(image)))
                _check_opencv(image, data)
                return pixels
        except UnusableImage:
            raise
        except Image.UnidentifiedImageError as error:
            if _has_image_signature(data):
                raise UnusableImage(
                    "unreadable", "the file begins as an image, but its header is damaged"
                ) from error
            raise UnusableImage("not an image", "the content is not that of an image") from error
        except Image.DecompressionBombError as error:
            raise UnusableImage("too large", str(error)) from error
        except MemoryError as error:
            raise UnusableImage("too large", "there is not enough memory to decode it") from error
        except Exception as error:  # decoders fail in every way there is on damaged data
            reason = f"{error}" or type(error).__name__
            ended_early = re.search(r"truncat|unexpected end|end of file|premature|not enough", reason, re.I)
            raise UnusableImage("truncated" if ended_early else "unreadable", reason) from error


def _check_size(width: int, height: int, maximum_pixels: int) -> None:
    if width * height > maximum_pixels:
        reason = f"{width} x {height} pixels; at most {maximum_pixels:,} are decoded"
        raise UnusableImage("too large", reason)


def _check_end(image: Image.Image, data: bytes) -> None:
    """Finds what Pillow does not look at when it decodes: checksums of PNG, missing ends of GIF and WebP."""
    if image.format == "PNG":
        with Image.open(io.BytesIO(data), formats=("PNG",)) as second:
            second.verify()
    elif image.format == "GIF" and not data.rstrip(b"\x00").endswith(b";"):
        raise UnusableImage("truncated", "the GIF has no end marker")
    elif image.format == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise UnusableImage("truncated", "the file is shorter than its WebP header says")


def _check_opencv(image: Image.Image, data: bytes) -> None:
    """Where two decoders disagree the file is not trusted: others will read it with OpenCV."""
    if image.format in ("PNG", "WEBP", "BMP", "TIFF", "GIF"):
        try:
            agreed = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None
        except cv2.error:
            agreed = False
        if not agreed:
            raise UnusableImage("unreadable", "Pillow can decode it, OpenCV can not")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey8(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _grey8(values: np.ndarray, mode: str) -> np.ndarray:
    """Deep grey values to uint8: 16 bits by their whole range, 32 bits and floats by the usual range they
    fit in."""
    values = np.nan_to_num(values.astype(np.float64))
    ranges = (65535.0,) if mode.startswith("I;16") else (255.0, 65535.0, 2**32 - 1)
    if mode == "F":
        ranges = (1.0, *ranges)
    largest = values.max(initial=0)
    white = next((end for end in ranges if largest <= end), ranges[-1])
    return (values / white * 255).clip(0, 255).round().astype(np.uint8)


def _has_image_signature(data: bytes) -> bool:
    starts = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP")
    return data.startswith(starts) or data[8:12] == b"WEBP" or data[4:8] == b"ftyp"


# --------------------------------------------------------------------------------------------------------
# The study's data

MAXIMUM_UNPACKED = 200 * 2**30  # bytes
MAXIMUM_RATIO = 30  # photos are compressed already: an archive that grows more than this is a bomb


def fetch(source: str | Path, destination: Path, sha256: str | None = None) -> Path:
    """Brings photos to `destination`, laid out as `<person>/**/<file>`, and returns it.

    `source` is a link (Google Drive or any other; an interrupted download goes on where it was), a zip or
    tar archive, or a folder, which is copied. Folders around those of the people, as archives have, are
    left out: people are told by where the images lie. Archives are unpacked with care: no member may lead
    out of the folder, be a link or a device, or appear twice; sizes are limited. `destination` appears
    complete or not at all, and must not hold anything before.

    Raises FileNotFoundError, FileExistsError, ConnectionError (with the way to do it by hand), OSError
    (disk full) and ValueError: `sha256`, where given, does not match, the archive is damaged or unsafe, or
    it holds no images.
    """
    destination = Path(destination)
    if destination.exists() and any(destination.iterdir()):
        raise FileExistsError(f"{destination} is not empty: use it as it is, or move away what is in it.")
    work = destination.parent / f".{destination.name}.fetching"
    work.mkdir(parents=True, exist_ok=True)
    link = str(source) if re.match(r"https?://", str(source)) else None
    place = _download(link, work / "download", destination) if link else Path(source)
    if not place.exists():
        raise FileNotFoundError(f"There is no archive or folder {place}.")
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        if place.is_dir():
            _copy(place / _people_folder(place), unpacked)
            people = unpacked
        else:
            _check_sha256(place, sha256)
            _unpack(place, unpacked)
            people = unpacked / _people_folder(unpacked)
    except ValueError:
        if link:
            place.unlink()  # or the next attempt would go on with it
        raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        shutil.rmtree(unpacked, ignore_errors=True)
        message = f"The disk that holds {destination.parent} is full: free some space and run again."
        raise OSError(errno.ENOSPC, message) from error
    if destination.exists():
        destination.rmdir()
    people.rename(destination)
    shutil.rmtree(work)
    return destination


def _download(link: str, place: Path, destination: Path) -> Path:
    import gdown  # slow to import, and every worker process imports this module

    drive = re.search(r"drive\.google\.com/(?:file/d/|.*[?&]id=)([\w-]+)", link)
    try:
        if drive:
            gdown.download(id=drive[1], output=str(place), resume=True)
        else:
            gdown.download(url=link, output=str(place), resume=True)
    except Exception as error:  # gdown, requests and sockets each have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"{link} could not be downloaded ({reason}). Download it in a browser and give the path "
            f"of the archive instead of the link, or unpack it by hand to {destination}/<person>/."
        ) from error
    return place


def _check_sha256(archive: Path, expected: str | None) -> None:
    if expected is None:
        return
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        found = digest.hexdigest()
        raise ValueError(f"{archive} is not the expected archive: SHA-256 {found}, not {expected.lower()}.")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into a new folder; only regular files, only below it, only so many
    bytes."""
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
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise ValueError(f"The archive {archive} is damaged ({error}): download it again.") from error
    if not seen:
        raise ValueError(f"The archive {archive} is empty.")


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields names and contents of an archive's files. Raises ValueError for what is no archive, and for
    links."""
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
        what = (
            "a web page, so the link does not lead to the file" if page else "neither a zip nor a tar archive"
        )
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
    """The folder below `folder` (posix, "" for itself) that holds those of the people, by where the images
    lie."""
    people = set()
    for path, _, _ in _walk(folder):
        if is_system_file(path) or not _begins_as_image(folder / path):
            continue
        *folders, _ = path.split("/")
        last = max(
            (place for place, name in enumerate(folders) if _quality([name]) != "unknown"),
            default=len(folders),
        )
        people.add(tuple(folders[:last]))
    if not people:
        raise ValueError(f"There are no images in {folder}.")
    pairs = zip(min(people), max(people), strict=False)  # what the first and the last share, all share
    common = tuple(name for name, other in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return "/".join(common[:-1] if common in people else common)


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _has_image_signature(file.read(32))
    except OSError:
        return False


def _copy(folder: Path, destination: Path) -> None:
    for path, _, _ in tqdm(list(_walk(folder)), desc="copying", unit=" files"):
        if (folder / path).is_file():
            (destination / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / path, destination / path)
