"""Crops are aligned as InsightFace aligns them."""

import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from src.packs.alignment import TEMPLATE, align, similarity

RNG = np.random.default_rng(0)


def smooth_picture(rows: int, columns: int, height: int, width: int) -> np.ndarray:
    coarse = RNG.integers(0, 256, (rows, columns, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@given(
    scale=st.floats(0.05, 30),
    angle=st.floats(-np.pi, np.pi),
    shift=st.tuples(st.floats(-500, 2000), st.floats(-500, 2000)),
)
def test_similarity_undoes_any_rotation_scaling_and_shift(scale, angle, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = TEMPLATE @ turn.T + shift
    matrix = similarity(landmarks)
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-2)


def test_similarity_and_crop_equal_insightface():
    from insightface.utils import face_align

    picture = smooth_picture(30, 40, 480, 640)
    for _ in range(20):
        landmarks = TEMPLATE * RNG.uniform(0.2, 2) + RNG.uniform(0, 200, 2) + RNG.normal(0, 6, (5, 2))
        landmarks = landmarks.astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            np.testing.assert_allclose(similarity(landmarks), face_align.estimate_norm(landmarks), atol=1e-4)
            expected = face_align.norm_crop(picture, landmarks)
        assert np.abs(align(picture, landmarks).astype(int) - expected).max() <= 1


def test_a_turned_photo_gives_the_same_crop():
    picture = smooth_picture(20, 20, 200, 200)
    landmarks = (TEMPLATE + 40).astype(np.float32)
    turned = np.ascontiguousarray(np.rot90(picture, 2))
    difference = align(picture, landmarks).astype(int) - align(turned, 199 - landmarks)
    assert np.abs(difference).mean() < 1


def test_the_module_costs_neither_onnx_nor_insightface():
    code = """
import sys
import src.packs.alignment
sys.exit(bool({'onnx', 'onnxruntime', 'insightface', 'torch', 'pandas'} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
