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


@pytest.fixture(scope="module")
def started_machines():
    """A Ray cluster of two machines of one core, for `machines`."""
    clusters.needed()
    with clusters.no_longer_than(clusters.PATIENCE):
        machines = clusters.Machines()
    workers._joined = ""  # the other tests work here
    yield machines
    machines.stop()


@pytest.fixture
def machines(started_machines, monkeypatch):
    """The cluster, whole, and joined for the time of one test."""
    with clusters.no_longer_than(clusters.PATIENCE):
        started_machines.complete()
        monkeypatch.setattr(workers, "_joined", started_machines.cluster.address)
        yield started_machines


# Models that take a while to fit are fitted once: tests must leave them, and their folders, as they are.


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    from tests import fitted  # needs torch and InsightFace, as few tests do

    return fitted.comparison(tmp_path_factory.mktemp("comparison"))


@pytest.fixture(scope="session")
def there(comparison, tmp_path_factory):
    """The comparison with probes in the place of photos."""
    from tests import fitted

    return fitted.beside(comparison, tmp_path_factory.mktemp("probes"))


@pytest.fixture(scope="session")
def rows(comparison, there):
    from tests import fitted

    return fitted.rows(comparison, there)
