import subprocess
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import workers
from src.evaluation import counting, pairs
from src.networks import embedding
from src.packs import alignment, as_shipped, faces
from src.packs.pack import Pack, load
from src.photos import cleaning, examining, finding
from tests.networks.small import small_network
from tests.packs import tiny_packs
from tests.photos import samples

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Photos of four people, one of them twice, and two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(24):
        data = samples.jpeg(samples.photo(number))
        samples.write(folder / f"person{number % 4}" / f"{number}.jpg", data)
    samples.write(folder / "person0" / "again.jpg", samples.jpeg(samples.photo(0)))
    samples.write(folder / "person1" / "cut.jpg", samples.jpeg(samples.photo(1))[:900])
    samples.write(folder / "person2" / "text.jpg", b"no photo at all, whatever it is called")
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Pack:
    folder = tmp_path_factory.mktemp("packs") / "tiny"
    tiny_packs.detector(folder / "det.onnx")
    tiny_packs.recogniser(folder / "rec.onnx")
    return load(folder)


@pytest.fixture(scope="module")
def clean(photos) -> pd.DataFrame:
    return cleaning.clean(finding.find(photos), photos, workers=1)


def test_without_a_cluster_nothing_of_ray_is_imported():
    code = (
        "import sys; from src import workers; from src.networks import embedding, finetuning; "
        "from src.packs import as_shipped, faces; from src.photos import cleaning; workers.join(''); "
        "assert not workers.joined() and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r'cluster is "local", but Ray is not installed.*cluster\.txt'):
        workers.join("local")
    assert not workers.joined()


def test_an_array_travels_by_its_file_where_it_is_all_of_it(tmp_path):
    np.save(file := tmp_path / "crops.npy", np.arange(12).reshape(6, 2))
    mapped = np.load(file, mmap_mode="r")
    for array, by_file in ((mapped, True), (mapped[2:], False), (np.arange(3), False)):
        rows = workers.Rows(array)
        opened, given = rows.__reduce__()
        np.testing.assert_array_equal(opened(*given).array, array)
        assert isinstance(given[0], str) == by_file


# ---------------------------------------------------------------- on a cluster


def test_results_come_in_order_and_an_error_as_it_is(machines):
    def inverse(number: int) -> float:
        return 1 / number

    found = []
    with pytest.raises(ZeroDivisionError, match="zero"):
        for result in workers.each(inverse, [4, 2, 1, 0, 5], at_once=2):
            found.append(result)
    assert found == [0.25, 0.5, 1.0]
    assert list(workers.each(inverse, [])) == []


def test_cleaning_gives_the_same_table(machines, monkeypatch, photos, clean):
    monkeypatch.setattr(examining, "_CHUNK_FILES", 4)
    pd.testing.assert_frame_equal(cleaning.clean(finding.find(photos), photos), clean)
    assert set(clean["status"]) == {"ok", "truncated", "not an image", "duplicate"}


class Slow:
    """Finds a face where a photo is bright, and takes its time, so that a machine can be lost meanwhile."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def detect(
        self, photo: np.ndarray, size: int | None = None, threshold: float = 0.5
    ) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(self.seconds)
        share = photo.mean() / 255
        box = np.array([[20, 20, 120, 140, 0.5 + share / 2]], np.float32)
        return box, (alignment.TEMPLATE[None] + 20 + 10 * share).astype(np.float32)

    map = staticmethod(map)


def test_embeddings_are_the_same(machines, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "crops.npy", rng.integers(0, 256, (40, 112, 112, 3), np.uint8))
    crops = np.load(tmp_path / "crops.npy", mmap_mode="r")
    of = partial(embedding.embed, crops, small_network(), batch_size=8, mirrored=True)
    here = of()
    monkeypatch.setattr(embedding, "WORTH", 1)
    np.testing.assert_allclose(of(), here, atol=1e-5)


def test_the_loop_as_shipped_gives_the_same(machines, monkeypatch, photos, pack, clean):
    table = clean[clean["status"] == "ok"][["path", "sha256"]].reset_index(drop=True)
    found = as_shipped.as_shipped(table, photos, pack)
    monkeypatch.setattr(workers, "_joined", "")
    np.testing.assert_allclose(found, as_shipped.as_shipped(table, photos, pack), atol=1e-5)


def test_all_pairs_are_counted_alike_to_the_last_one(machines, monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    identity, quality = np.arange(300) // 10, (np.arange(300) % 2).astype(np.int8)
    test = pairs.Trials("test", np.arange(300), identity, (), quality, np.full(300, -1))
    monkeypatch.setattr(pairs, "_TILE", 64)
    monkeypatch.setattr(counting, "_EXACT", 0)
    counted = {}
    for cluster in ("", machines.cluster.address):
        monkeypatch.setattr(workers, "_joined", cluster)
        counted[cluster] = pairs.count_pairs(vectors, test, np.ones(300, bool), np.zeros(300, bool), "numpy")
    here, there = counted.values()
    assert here.keys() == there.keys() == {"all", "high-high", "high-low", "low-low"}
    for stratum, counts in here.items():
        for field in fields(counts):
            np.testing.assert_array_equal(getattr(there[stratum], field.name), getattr(counts, field.name))


def test_faces_are_the_same_though_a_machine_is_lost(machines, monkeypatch, photos, clean):
    monkeypatch.setattr(workers, "_joined", "")
    wanted, crops = faces.every_face(clean, photos, Slow(0))
    monkeypatch.setattr(workers, "_joined", machines.cluster.address)
    monkeypatch.setattr(faces, "_AT_ONCE", 2)
    monkeypatch.setattr(workers, "each", machines.losing(workers.each, after=6))
    found, found_crops = faces.every_face(clean, photos, Slow(0.2))
    assert machines.second is None
    pd.testing.assert_frame_equal(found, wanted)
    np.testing.assert_array_equal(found_crops, crops)
