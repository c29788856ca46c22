import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as metric_losses

from src.networks import losses


@pytest.mark.parametrize("make", [losses.cosface, lambda *_: metric_losses.ProxyAnchorLoss(3, 4)])
def test_classes_start_at_the_means_of_their_people(make):
    embeddings = torch.nn.functional.normalize(torch.randn(9, 4))
    labels = np.repeat(np.arange(3), 3)
    loss = make(3, 4, 0.3, 16.0)
    losses.imprint(loss, embeddings, labels)
    weights = loss.W.T if hasattr(loss, "W") else loss.proxies
    means = torch.nn.functional.normalize(embeddings.view(3, 3, 4).mean(1))
    torch.testing.assert_close(weights.detach(), means)


def test_a_loss_without_classes_is_left_alone_and_has_no_accuracy():
    loss = metric_losses.TripletMarginLoss()
    losses.imprint(loss, torch.randn(4, 3), np.array([0, 0, 1, 1]))
    assert np.isnan(losses.accuracy(loss, torch.randn(4, 3), torch.tensor([0, 0, 1, 1])))


def test_accuracy_is_the_share_of_right_answers():
    loss = losses.cosface(2, 2, 0.0, 16.0)
    losses.imprint(loss, torch.eye(2), np.arange(2))
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 0.2]])
    assert losses.accuracy(loss, embeddings, torch.tensor([0, 1, 0, 1])) == 0.75
