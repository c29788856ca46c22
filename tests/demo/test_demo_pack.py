"""The demo pack is a pack like any other: InsightFace loads it, and it works on generated faces."""

import cv2
import numpy as np
import pytest
from insightface.app import FaceAnalysis
from insightface.utils.face_align import norm_crop

from src.demo import drawing, mode, people


@pytest.fixture(scope="module")
def analysis():
    app = FaceAnalysis(name=str(mode.PACK), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1)
    return app


def shots(count):
    for seed in range(40_000, 40_000 + count):
        yield drawing.draw(people.person(seed), people.view(np.random.default_rng(seed)), 208)


def test_pack_is_small_and_complete(analysis):
    assert mode.PACK.name == "demo_pack"  # a pack's name is its folder's
    assert sum(file.stat().st_size for file in mode.PACK.iterdir()) <= 2_000_000
    assert set(analysis.models) == {"detection", "recognition"}


def test_pack_finds_faces_and_their_landmarks(analysis):
    errors = []
    for photo, points in shots(20):
        faces = analysis.get(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
        if len(faces) == 1:
            eyes = np.linalg.norm(points[1] - points[0])
            errors.append(np.linalg.norm(faces[0].kps - points, axis=1).mean() / eyes)
    assert len(errors) >= 18
    assert np.median(errors) < 0.08


def test_pack_sees_no_face_where_there_is_none(analysis):
    rng = np.random.default_rng(0)
    for _ in range(5):
        patches = rng.integers(0, 256, (6, 6, 3), np.uint8)
        assert not analysis.get(cv2.resize(patches, (224, 224), interpolation=cv2.INTER_CUBIC))


def test_pack_tells_people_apart_and_takes_batches(analysis):
    rng = np.random.default_rng(0)
    crops = []
    for seed in range(50_000, 50_006):
        who = people.person(seed)
        for _ in range(2):
            photo, points = drawing.draw(who, people.view(rng), 208)
            crops.append(norm_crop(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), points))
    recogniser = analysis.models["recognition"]
    together = recogniser.get_feat(crops)
    alone = np.concatenate([recogniser.get_feat(crop) for crop in crops])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    embeddings = together / np.linalg.norm(together, axis=1, keepdims=True)
    score = embeddings @ embeddings.T
    genuine = score[np.arange(0, 12, 2), np.arange(1, 12, 2)]
    impostor = score[np.triu_indices(12, 2)]
    assert np.median(genuine) > np.quantile(impostor, 0.9)
