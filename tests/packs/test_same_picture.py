"""Two crops are told to be one picture, or two, whatever was done to the one."""

import cv2
import numpy as np
import pandas as pd
import pytest

from src.demo import drawing, people
from src.packs import same_picture
from src.packs.alignment import LANDMARKS, align

COLUMNS = [f"{name}_{axis}" for name in LANDMARKS for axis in "xy"]


def shot(who: int, number: int, side: int = 224) -> tuple[np.ndarray, np.ndarray]:
    return drawing.draw(people.person(who), people.view(np.random.default_rng([who, number])), side)


def prepared(shots: list[tuple[np.ndarray, np.ndarray]]) -> same_picture.Pictures:
    crops = np.stack([align(photo, points) for photo, points in shots])
    candidates = pd.DataFrame([points.ravel() for _, points in shots], columns=COLUMNS)
    return same_picture.pictures(crops, candidates, np.array([photo.shape[1::-1] for photo, _ in shots]))


def blurred(photo: np.ndarray, factor: int) -> np.ndarray:
    small = cv2.resize(photo, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, photo.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def score(shots, mirror: bool = False) -> float:
    shown = prepared(shots)
    other = shown.mirrored() if mirror else shown
    return float(same_picture.agreement(shown, other, np.array([[0, 1]]))[0][0])


@pytest.mark.parametrize("who", range(6))
def test_a_copy_agrees_though_it_is_blurred_and_its_landmarks_are_off_a_little(who):
    photo, points = shot(who, 0)
    moved = points + np.random.default_rng(who).normal(0, 2, points.shape).astype(np.float32)
    assert score([(photo, points), (blurred(photo, 8), moved)]) > 0.98


def test_other_photos_of_the_person_hardly_ever_agree():
    scores = [score([shot(who, 0), shot(who, number)]) for who in range(6) for number in (1, 2, 3)]
    assert np.mean(np.array(scores) < 0.967) > 0.8 and max(scores) < 0.995


def test_a_mirrored_copy_agrees_mirrored():
    photo, points = shot(1, 0)
    flipped = np.ascontiguousarray(photo[:, ::-1])
    other = points[[1, 0, 2, 4, 3]] * [-1, 1] + [photo.shape[1] - 1, 0]
    shots = [(photo, points), (flipped, other.astype(np.float32))]
    assert score(shots, mirror=True) > 0.99 > score(shots)


def test_what_lies_outside_a_photo_does_not_count():
    photo, points = shot(2, 0)
    left = int(points[:, 0].min()) - 12
    cut = (np.ascontiguousarray(photo[:, left:]), points - np.array([left, 0], np.float32))
    shown = prepared([(photo, points), cut])
    assert shown.uncertain.tolist() == [False, True]
    assert shown.weight[1].mean() < shown.weight[0].mean() == 1
    assert same_picture.agreement(shown, shown, np.array([[0, 1]]))[0][0] > 0.98


def test_landmarks_that_are_off_are_made_up_for_by_a_search():
    photo, points = shot(3, 0)
    middle = points.mean(axis=0)
    off = (middle + (points - middle) * 1.45 + [14, -10]).astype(np.float32)
    shown = prepared([(photo, points), (photo, off)])
    pair = np.array([[0, 1]])
    direct, _ = same_picture.agreement(shown, shown, pair)
    found = same_picture.Finder(shown, shown).starts(0, 1)
    starts = np.array([move for _, move in sorted(found, key=lambda entry: -entry[0])[:3]])
    searched, _ = same_picture.agreement(shown, shown, np.repeat(pair, len(starts), 0), starts)
    assert searched.max() > max(0.98, direct[0])


def test_next_to_no_contrast_is_no_picture():
    flat = np.full((224, 224, 3), 90, np.uint8)
    points = shot(0, 0)[1]
    assert score([(flat, points), (flat, points)]) == -1


def test_detail_and_everywhere_tell_silhouettes_from_copies():
    """Two different faces before black agree by their outline, and not within it."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(112), np.arange(112))
    inside = ((across - 56) ** 2 + (down - 60) ** 2 < 40**2)[..., None]
    textures = [cv2.resize(rng.normal(0, 1, (28, 28)).astype(np.float32), (112, 112)) for _ in range(2)]
    crops = np.stack([(inside * (160 + 35 * texture[..., None]).clip(0, 255)) for texture in textures])
    crops = np.repeat(crops, 3, axis=3).astype(np.uint8)
    crops = np.concatenate([crops, crops[:1]])
    candidates = pd.DataFrame([np.full(10, np.nan)] * 3, columns=COLUMNS)
    sizes, pairs = np.full((3, 2), 112), np.array([[0, 1], [0, 2]])
    shown = same_picture.pictures(crops, candidates, sizes)
    assert (same_picture.agreement(shown, shown, pairs)[0] > 0.967).all()
    fine = same_picture.pictures(crops, candidates, sizes, same_picture.FINE, 2.0)
    _, moves = same_picture.agreement(fine, fine, pairs)
    for measure, least in ((same_picture.everywhere, 0.6), (same_picture.detail, 0.95)):
        different, same = measure(fine, fine, pairs, moves)
        assert different < least < 0.99 < same
