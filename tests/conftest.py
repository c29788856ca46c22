"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

from src import workers
from tests import clusters


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


@pytest.fixture(scope="session")
def started_machines():
    """A Ray cluster of two machines of one core, for `machines`."""
    clusters.needed()
    machines = clusters.Machines()
    workers._joined = ""  # the other tests work here
    yield machines
    machines.stop()


@pytest.fixture
def machines(started_machines, monkeypatch):
    """The cluster, whole, and joined for the time of one test."""
    started_machines.complete()
    monkeypatch.setattr(workers, "_joined", started_machines.cluster.address)
    return started_machines
