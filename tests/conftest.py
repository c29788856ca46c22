"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real photos and packs; tests that need it skip where FACE_TEST_DATA is not set."""
    place = os.environ.get("FACE_TEST_DATA")
    if not place:
        pytest.skip("FACE_TEST_DATA is not set: real photos are not at hand")
    return Path(place)


@pytest.fixture(scope="session")
def iresnet50(tmp_path_factory) -> Path:
    """A recogniser of the architecture of buffalo_l's, with random weights."""
    from tests import iresnet  # needs torch, as few tests do

    return iresnet.write(tmp_path_factory.mktemp("pack") / "w600k_r50.onnx")
