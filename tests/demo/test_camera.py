"""A bad camera takes detail, and a file gives back the picture it holds."""

import cv2
import numpy as np
import pytest

from src.demo import camera, drawing, people


@pytest.fixture(scope="module")
def photo():
    return drawing.draw(people.person(3), people.view(np.random.default_rng(0)), 144)[0]


def test_a_spoilt_photo_is_rgb_bytes_and_the_same_for_the_same_seed(photo):
    worse = camera.spoil(photo, 60, np.random.default_rng(1))
    assert worse.dtype == np.uint8 and worse.ndim == 3 and worse.shape[2] == 3
    np.testing.assert_array_equal(worse, camera.spoil(photo, 60, np.random.default_rng(1)))


def test_little_detail_is_left(photo):
    """Brought back to its first size, a spoilt photo has lost most of its fine structure."""

    def detail(picture):
        return cv2.Laplacian(cv2.resize(picture, (144, 144)).astype(np.float32), cv2.CV_32F).std()

    spoilt = [detail(camera.spoil(photo, 60, np.random.default_rng(seed))) for seed in range(10)]
    assert np.median(spoilt) < 0.7 * detail(photo)


def test_files_give_back_their_picture(photo):
    def read(data):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(np.asarray(picture), cv2.COLOR_BGR2RGB)

    np.testing.assert_array_equal(read(camera.encoded(photo, ".png")), photo)
    fine, coarse = (camera.encoded(photo, ".jpg", quality) for quality in (90, 30))
    assert len(coarse) < len(fine)
    assert np.abs(read(fine).astype(int) - photo).mean() < 4
