"""Who is shown, by the names of photos that lie together in one folder, where these say so for sure."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from src.photos import words

_COVERED = 0.98  # share of the names that a reading must make sense of
_PER_PERSON = 1.5  # photos a person must have on average: more names than that are of photos, not of people

# Sets whose names start with the person.
_FORMS = [
    re.compile(r"(\d{3})_(?:cam\d(?:_\d)?|frontal|[LR]\d)", re.IGNORECASE),  # SCface
    re.compile(r"(\d{1,5})_cam\d+_\d+", re.IGNORECASE),  # SurvFace
    re.compile(r"(\d{4,5})_c\d+s?\d*_f?\d+(?:_\d+)?", re.IGNORECASE),  # Market-1501 and its kin
    re.compile(r"(\d{5})_\d{6}_[a-z]{2}(?:_[a-z])?", re.IGNORECASE),  # FERET, in colour
    re.compile(r"(\d{5})[a-z]{2}\d{3}[a-z]?_\d{6}(?:_[a-z])?", re.IGNORECASE),  # FERET, in grey
]
_GALLERY = re.compile(r"(\d+)_\d+")  # TinyFace; anywhere else these may be frame and face
# What cameras, telephones and programs call a photo.
_DEVICES = words.set_of(
    """img image images photo photos pic pics picture pictures dsc dscn dscf pxl mvimg face faces frame frames
    crop cropped aligned screenshot screen shot whatsapp snapchat signal vlcsnap snap snapshot capture cap
    selfie scan untitled unnamed download file copy edited burst portrait pano cover top video vid out output
    result sample at am pm web size original jpg jpeg png"""
)
_SEPARATORS = re.compile(r"[^\W_]+", re.UNICODE)
_JUNK = re.compile(r"(?=.*\d)[0-9a-f]{7,}|[0-9a-z]{16,}", re.IGNORECASE)


def people(stems: Sequence[str], gallery: bool = False) -> tuple[list[str], str]:
    """The person of every photo by its name without suffix, "" where it says none; and "" or why that fails.

    gallery: the folders are called gallery and probe, so that bare numbers are person and photo.
    """
    readings: list[Callable[[str], str]] = [_form(form) for form in _FORMS + [_GALLERY] * gallery]
    why = "the names of the photos do not say who is shown"
    for reading in [*readings, _mixed(_FORMS), _by_words]:
        found = [reading(stem) for stem in stems]
        known = Counter(person for person in found if person)
        if sum(known.values()) < _COVERED * len(stems):
            continue
        if len(known) == 1:
            why = f"by the names of the photos all of them are of {next(iter(known))!r}"
        elif sum(known.values()) < _PER_PERSON * len(known):
            why = "hardly two names of photos begin alike, so that they do not say who is shown"
        else:
            return found, ""
    return [""] * len(stems), why


def _form(form: re.Pattern[str]) -> Callable[[str], str]:
    def read(stem: str) -> str:
        match = form.fullmatch(stem)
        return match[1] if match else ""

    return read


def _mixed(forms: list[re.Pattern[str]]) -> Callable[[str], str]:
    return lambda stem: next((match[1] for form in forms if (match := form.fullmatch(stem))), "")


def _by_words(stem: str) -> str:
    """`Anna_Meier_0001`, `anna (2)`, `cam1-anna-03`, `0_AnnaMeier_35_f`: the words that are no device's."""
    spans = [match.span() for match in _SEPARATORS.finditer(stem)]
    tokens = [stem[start:stop] for start, stop in spans]
    names = [i for i, token in enumerate(tokens) if _is_name(token, alone=len(tokens) == 1)]
    if not names:
        return ""
    first, last = names[0], names[-1]
    if any(re.search(r"\d", token) and i not in names for i, token in enumerate(tokens) if first < i < last):
        return ""  # George_W_Bush is one name, Anna_2_Ben is not
    person = stem[spans[first][0] : spans[last][1]]
    if last == len(tokens) - 1 and not any(token.isdigit() for token in tokens):
        person = re.sub(r"\d+$", "", person)  # anna1, anna2
    return "" if person.lower() in _DEVICES else person


def _is_name(token: str, alone: bool) -> bool:
    """Whether a part of a name is one of a person's: no number, camera, pose, day, code or digest."""
    text = re.sub(r"\d+$", "", token).lower() if alone else token.lower()
    bare = re.sub(r"\d+$", "", text)
    if not bare or token.isdigit() or len(bare) == 1 or _JUNK.fullmatch(token):
        return False
    return bare not in _DEVICES and not words.kinds(bare)
