"""What the words in a folder's name say: a quality, a split, a camera, a day, or most likely a person."""

import functools
import re
import unicodedata
from collections.abc import Sequence

# Kinds of folders that stand above or below the people, and the words that make their names.
_KINDS = {
    "split": """
        train training trainset trainingset test testing testset testingset val valid validation valset
        dev devset eval evaluation gallery galleries probe probes query queries enrol enroll enrolment
        enrollment mated unmated holdout seen unseen fold folds split splits partition match
        identification verification bounding box""",
    "quality": """
        high hi higher low lo lower medium mid middle quality qualities qual resolution resolutions res
        definition def hq lq mq hr lr hd highres lowres hires lores highquality lowquality
        highresolution lowresolution degraded downsampled upsampled""",
    "camera": """
        cam cams camera cameras kamera cctv surveillance webcam ipcam ptz mugshot mugshots phone
        smartphone mobile iphone dslr nir vis ir infrared thermal visible indoor indoors outdoor
        outdoors entrance exit lobby door gate corridor hallway parking reception dist distance
        distances near far yaw pitch angle location locations site sites station zone zones room rooms
        floor building buildings office home street outside inside checkpoint turnstile""",
    "session": """
        session sessions sess day days night nights week visit take recording recordings rec sequence
        sequences seq clip clips track tracks shoot trial round scene event portal""",
    "date": """
        january february march april may june july august september october november december jan feb
        mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday
        morning noon afternoon evening""",
    "view": """
        frontal profile profiles front side left right rear back top view views pose poses rotated
        rotation three quarter""",
    "look": """
        smile smiling neutral happy sad angry surprised surprise fear disgust glasses noglasses
        sunglasses mask masked scarf hat dark light bright illumination expression expressions occluded
        occlusion normal sleepy wink blurred blurry sharp noisy compressed""",
    "group": """
        men women man woman male males female females boy boys girl girls adults children kids staff
        visitors guests employees students teachers team teams department class classes group groups
        batch part category categories celebrities celebs actors actresses politicians players family
        friends""",
    "nobody": """
        distractor distractors unknown unknowns imposter imposters impostor impostors stranger strangers
        unlabeled unlabelled nobody unidentified""",
    "container": """
        images image imgs img photos photo pictures picture pics pic faces face data dataset datasets
        database db set sets jpg jpeg jpegs png pngs bmp ppm pgm raw aligned align cropped crop crops
        original originals orig processed preprocessed extracted resized cleaned all full people persons
        identities subjects users individuals frames frame video videos color colour grey gray grayscale
        rgb bgr folder files media upload uploads copy""",
    "source": """
        lfw vggface casia webface cfp scface chokepoint tinyface survface qmul feret colorferet celeba
        umdfaces ms glint agedb xqlfw ytf dvd deepfunneled funneled funnelled kaggle archive web tiny
        surv choke point""",
}  # fmt: skip


def set_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORDS = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_FILLERS = set_of("of the and with for from at in by on no not to a x px")
_NUMBERED_PEOPLE = set_of("man woman male female boy girl")  # man1, man2 are two people

_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:19[5-9]\d|20[0-4]\d)"
_SEPARATOR = r"[-_. ]"
_DATE = re.compile(
    rf"{_YEAR}|{_YEAR}{_SEPARATOR}{_MONTH}|{_MONTH}{_SEPARATOR}{_YEAR}"
    rf"|{_YEAR}({_SEPARATOR}){_MONTH}\1{_DAY}|{_DAY}({_SEPARATOR}){_MONTH}\2{_YEAR}"
    rf"|{_MONTH}({_SEPARATOR}){_DAY}\3{_YEAR}|{_YEAR}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
    rf"|{_DAY}\.{_MONTH}\.\d\d"
)
_TIME = re.compile(r"(?<=\d)[ _t-]+([01]?\d|2[0-3])([-:._h]?[0-5]\d){1,2}s?$")
_DISTANCE = re.compile(r"\d+([.,]\d+)?[ _-]?(m|cm|ft|met(er|re)s?|feet)")
_CHOKEPOINT = re.compile(r"p[12][el](_s\d+(_c\d+(\.\d+)?)?)?")

_SPLITS = {
    "train": "train", "training": "train", "trainset": "train", "trainingset": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "testset": "test", "testingset": "test", "eval": "test",
    "evaluation": "test", "testseen": "test_seen", "testunseen": "test_unseen",
}  # fmt: skip

_LEVEL_WORDS = {
    "high": "high hi higher highest good hoch hohe hoher alta haute yüksek",
    "low": "low lo lower lowest poor bad niedrig niedrige niedriger schlecht schlechte baja basse düşük",
    "middle": "medium mid middle mq mittel mittlere media orta",
}
_LEVELS = {word: level for level, words in _LEVEL_WORDS.items() for word in words.split()}
_COMPACT_WORDS = {
    "high": "hq hr hd hires highres highquality highresolution hidef highdef highq",
    "low": "lq lr lores lowres lowquality lowresolution lowdef lowq",
}
_COMPACT = {word: level for level, words in _COMPACT_WORDS.items() for word in words.split()}
_MEASURES = set_of(
    "quality qualities qual res resolution resolutions definition def qualität qualitaet qualité qualite "
    "calidad qualidade qualità kalite çözünürlük auflösung"
)
_NEGATIONS = set_of("no not non without")

# The same for patterns: what a quality or a split looks like beside other words.
QUALITY = (
    r"(?:(?:high|hi|higher|good|low|lo|lower|bad|poor)(?:[\W_]*(?:quality|qual|resolution|res|definition|def))?"
    r"|[hl][qr]|hd)(?:[\W_]*\d+)?"
)
SPLIT = (
    r"(?:train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?(?:[\W_]*(?:un)?seen)?|eval(?:uation)?)"
    r"(?:[\W_]*set)?"
)


def words_of(name: str) -> list[str]:
    """The words and numbers of a name in lower case, Unicode NFC: `Cam2_lowRes` is cam, 2, low, res."""
    name = unicodedata.normalize("NFC", name)
    name = re.sub(r"(\d)[x×](\d)", r"\1 \2", name)
    parts = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-zß-ÿ])(?=[A-Z])", " ", name))
    return [part.lower() for part in parts]


@functools.lru_cache(maxsize=10_000)
def quality(name: str) -> str:
    """The quality, "high" or "low", that a folder's name gives; "" where it gives none, or none for sure."""
    words = words_of(name)
    squeezed = "".join(words)
    if squeezed in _COMPACT or squeezed in ("high", "low"):
        return _COMPACT.get(squeezed, squeezed)
    levels = {known[word] for word in words for known in (_LEVELS, _COMPACT) if word in known}
    rest = [w for w in words if w not in _LEVELS and w not in _COMPACT and not w.isdigit()]
    if _MEASURES & set(words):  # whatever else: "low quality (CCTV)"
        clear = not _NEGATIONS & set(words)
    elif set(_COMPACT) & set(words):  # "HR department" is none
        clear = all(_WORDS.get(word, "group") != "group" for word in rest)
    else:  # "low light" is none, nor is "good"
        clear = bool({"high", "low"} & set(words)) and all(_WORDS.get(word) == "container" for word in rest)
    return levels.pop() if clear and levels in ({"high"}, {"low"}) else ""


def seems_quality(name: str) -> bool:
    """Whether a folder's name speaks of a quality, known to `quality` or not."""
    words = set(words_of(name))
    if words & _MEASURES or words & set(_COMPACT):
        return True
    return bool(words & set(_LEVELS)) and all(word in _LEVELS or word.isdigit() for word in words)


def split(text: str) -> str:
    """The split that a text names: "train", "val", "test_seen", "test_unseen", "test" for either; else ""."""
    return _SPLITS.get("".join(words_of(text)), "")


def tests_told_apart(identity: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The splits, with "test" as test_seen for people who may be trained on, and else as test_unseen."""
    trained = {person for person, name in zip(identity, splits, strict=True) if name in ("", "train")}
    tests = ("test_unseen", "test_seen")
    return [
        tests[person in trained] if name == "test" else name
        for person, name in zip(identity, splits, strict=True)
    ]


@functools.lru_cache(maxsize=10_000)
def kinds(name: str) -> frozenset[str]:
    """What a folder is by its name, if it is surely no person: words of `_KINDS`; else empty.

    Every word must be one of those known, numbers and single letters aside: `surveillance_cameras_distance_1`
    is a camera, `Anna May` a person, and so are `face1` and `unknown_2`, as people may be numbered.
    """
    text = unicodedata.normalize("NFC", name).strip().lower()
    if _DATE.fullmatch(_TIME.sub("", text)) or _DATE.fullmatch(text):
        return frozenset({"date"})
    if _DISTANCE.fullmatch(text) or _CHOKEPOINT.fullmatch(text):
        return frozenset({"camera"})
    words = words_of(name)
    found = {_WORDS[word] for word in words if word in _WORDS}
    strange = [w for w in words if w not in _WORDS and w not in _FILLERS and not w.isdigit() and len(w) > 1]
    if strange:
        return frozenset({"quality"} if quality(name) else ())
    numbered = any(word.isdigit() for word in words) and not re.search(r"\d\s*[x×]\s*\d", text)
    if numbered and (found <= {"container", "nobody"} or _NUMBERED_PEOPLE & set(words)):
        return frozenset()
    return frozenset(found)


def is_weak(name: str) -> bool:
    """Names of a letter and a number, `S1`, `c02`, or `set a`: sessions in one set, people in the next."""
    form = r"[a-z]\d{1,2}|(set|folder)[ _-]?\w{1,2}"
    return re.fullmatch(form, name.strip().lower()) is not None
