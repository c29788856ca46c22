"""The architecture of buffalo_l's recogniser, as an ONNX file with random weights."""

import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS = (64, 128, 256, 512)  # of w600k_r50.onnx
QUARTER = (16, 32, 64, 128)


class Block(nn.Module):
    """Of arcface_torch's IResNet: the norms after convolutions folded into them, the first one left."""

    def __init__(self, before, channels, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = folded(nn.Conv2d(before, channels, 3, 1, 1, bias=False))
        self.prelu = nn.PReLU(channels)
        self.conv2 = folded(nn.Conv2d(channels, channels, 3, stride, 1, bias=False))
        plain = stride == 1 and before == channels
        self.downsample = (
            nn.Identity() if plain else folded(nn.Conv2d(before, channels, 1, stride, bias=False))
        )

    def forward(self, images):
        return self.conv2(self.prelu(self.conv1(self.bn1(images)))) + self.downsample(images)


def folded(convolution):
    norm = nn.BatchNorm2d(convolution.out_channels)
    norm.running_mean, norm.running_var = torch.rand(len(norm.weight)), 0.5 + torch.rand(len(norm.weight))
    return fuse_conv_bn_eval(convolution.eval(), norm.eval())


def build(widths: tuple[int, int, int, int] = WIDTHS) -> nn.Sequential:
    """float [B, 3, 112, 112] to [B, 512], with random weights."""
    torch.manual_seed(0)
    stages, before = [], widths[0]
    for channels, blocks in zip(widths, (3, 4, 14, 3), strict=True):
        for i in range(blocks):
            stages.append(Block(before, channels, 2 if i == 0 else 1))
            before = channels
    return nn.Sequential(
        folded(nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)), nn.PReLU(widths[0]), *stages,
        nn.BatchNorm2d(before), nn.Dropout(0.0),
        nn.Flatten(), nn.Linear(before * 49, 512), nn.BatchNorm1d(512),
    ).eval()  # fmt: skip


def write(file: Path, widths: tuple[int, int, int, int] = QUARTER) -> Path:
    """Like w600k_r50.onnx; by default a quarter as wide, to save time."""
    network = build(widths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(2, 3, 112, 112),)
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            network,
            example,
            file,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=18,
            external_data=False,
            verbose=False,
        )
    return file
