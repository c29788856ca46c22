"""Losses that fine-tuning can minimise; any of pytorch-metric-learning's fits."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import CosFaceLoss
from torch import Tensor, nn

# How a loss is made: from the number of people, the size of an embedding, the margin and the scale. What is
# made is called with embeddings [B, D] and labels [B].
MakeLoss = Callable[[int, int, float, float], nn.Module]


def cosface(people: int, embedding_size: int, margin: float, scale: float) -> nn.Module:
    """Margin softmax: `margin` is taken off the cosine with the right person (CosFace, Wang et al. 2018)."""
    return CosFaceLoss(people, embedding_size, margin=margin, scale=scale)


def imprint(loss: nn.Module, embeddings: Tensor, labels: np.ndarray) -> None:
    """Starts the loss's class weights at the means of the people's embeddings [N, D]; labels [N].

    Weight imprinting (Qi et al. 2018): from random classes, the first steps would distort what a learnt
    network knows (Kumar et al. 2022). A loss without one weight vector per person is left as it is.
    """
    means = torch.stack(
        [embeddings[torch.from_numpy(labels == label)].mean(0) for label in range(labels.max() + 1)], 1
    )
    for name, vectors in (("W", F.normalize(means, dim=0)), ("proxies", F.normalize(means, dim=0).T)):
        weights = getattr(loss, name, None)
        if isinstance(weights, nn.Parameter) and weights.shape == vectors.shape:
            weights.data.copy_(vectors)


def accuracy(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> float:
    """Share of embeddings [B, D] whose likeliest person is right; NaN for a loss without classes."""
    get_logits = getattr(loss, "get_logits", None)
    if not callable(get_logits):
        return float("nan")
    return (get_logits(embeddings.detach()).argmax(1) == labels).float().mean().item()
