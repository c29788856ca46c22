"""A test set that several modules' tests share."""

import pytest

from tests.evaluation.examples import evaluated, make


@pytest.fixture(scope="session")
def example():
    """Embeddings, faces, better embeddings, and the results of both models on `test_seen`."""
    vectors, faces = make(people=12, photos=12)
    better = make(people=12, photos=12, noise=0.8)[0]
    return vectors, faces, better, evaluated(faces, {"buffalo_l": vectors, "ResNet-50 fine-tuned": better})
