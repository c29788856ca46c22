"""Makes good photos look like bad ones, whole batches at a time: what surveillance does to a face.

Images are float [B, 3, H, W], RGB in [0, 1], on any device; results have the same shape and range. Every
function draws one strength per image from `generator`, which must live on the images' device.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SIDES = (8, 11, 16, 20, 26, 32, 40, 56)  # pixels across the crop that low resolution leaves
DOWN = ("area", "bilinear", "bicubic")
UP = ("nearest", "bilinear", "bicubic")

# Tables K.1 and K.2 of the JPEG standard (ITU-T T.81): quantisation steps at quality 50.
LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = torch.full((8, 8), 99)
CHROMINANCE[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])


def degrade(images: Tensor, generator: Generator, clean: float = 0.4, chance: float = 0.6) -> Tensor:
    """Leaves a share `clean` of the images; on each of the rest, each effect acts with probability `chance`.

    The order of the effects is drawn anew for every batch, as in AdaFace's and Real-ESRGAN's training data: a
    photo may be compressed before it is shrunk, or after.
    """
    if not 0 <= clean <= 1 or not 0 <= chance <= 1:
        raise ValueError(f"clean and chance are shares between 0 and 1, not {clean} and {chance}")
    effects: tuple[Callable[[Tensor, Generator], Tensor], ...] = (
        resolution, blur, motion, noise, jpeg, light,
    )  # fmt: skip
    spoilt = _uniform(images, generator, 0, 1) >= clean
    result = images
    for i in torch.randperm(len(effects), generator=generator, device=images.device).tolist():
        chosen = (_uniform(images, generator, 0, 1) < chance) & spoilt
        if chosen.any():
            result = result.clone()
            result[chosen] = effects[i](result[chosen], generator)
    return result


def resolution(images: Tensor, generator: Generator) -> Tensor:
    """Shrinks to one of `SIDES` pixels and back, with kernels drawn at random."""
    result = images.clone()
    choice = _randint(images, generator, len(SIDES))
    for i in choice.unique().tolist():
        down = DOWN[int(_randint(images[:1], generator, len(DOWN)))]
        up = UP[int(_randint(images[:1], generator, len(UP)))]
        small = _resize(images[choice == i], (SIDES[i], SIDES[i]), down)
        result[choice == i] = _resize(small, tuple(images.shape[-2:]), up)
    return result.clamp(0, 1)


def blur(images: Tensor, generator: Generator) -> Tensor:
    """Out of focus: a Gaussian of 0.5 to 4 pixels at 112 pixels across."""
    sigma = _uniform(images, generator, 0.5, 4.0).view(-1, 1, 1) * images.shape[-1] / 112

    def response(fy: Tensor, fx: Tensor) -> Tensor:
        return torch.exp(-2 * (math.pi * sigma) ** 2 * (fy**2 + fx**2))

    return _filter(images, response)


def motion(images: Tensor, generator: Generator) -> Tensor:
    """Moving subject: smeared along a line of 2 to 14 pixels at 112 pixels across, in any direction."""
    length = _uniform(images, generator, 2, 14).view(-1, 1, 1) * images.shape[-1] / 112
    angle = _uniform(images, generator, 0, math.pi).view(-1, 1, 1)

    def response(fy: Tensor, fx: Tensor) -> Tensor:
        return torch.sinc(length * (fy * angle.sin() + fx * angle.cos()))

    return _filter(images, response)


def noise(images: Tensor, generator: Generator) -> Tensor:
    """Sensor noise: read noise of up to 0.08, shot noise that grows with the light; often coarse."""
    read = _uniform(images, generator, 0, 0.08).view(-1, 1, 1, 1)
    shot = _uniform(images, generator, 0, 0.01).view(-1, 1, 1, 1)
    fine = torch.randn(images.shape, generator=generator, device=images.device)
    # Halving the resolution of the grain as video codecs do; averaging 2 x 2 halves its spread, so it is
    # doubled.
    coarse = F.interpolate(2 * F.avg_pool2d(fine, 2, ceil_mode=True), size=images.shape[-2:], mode="bilinear")
    grain = torch.where(_uniform(images, generator, 0, 1).view(-1, 1, 1, 1) < 0.5, fine, coarse)
    return (images + grain * (read**2 + shot * images).sqrt()).clamp(0, 1)


def jpeg(images: Tensor, generator: Generator) -> Tensor:
    """JPEG compression at quality 5 to 60: quantised 8 x 8 cosine transforms, colours at half resolution."""
    quality = _uniform(images, generator, 5, 60)
    height, width = images.shape[-2:]
    padded = F.pad(images * 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    red, green, blue = padded.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)
    luma = _quantised(luma[:, None] - 128, quality, LUMINANCE)[:, 0] + 128
    chroma = _quantised(F.avg_pool2d(chroma, 2), quality, CHROMINANCE)
    blueness, redness = F.interpolate(chroma, scale_factor=2, mode="nearest").unbind(1)
    red, blue = luma + 1.402 * redness, luma + 1.772 * blueness
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return (torch.stack([red, green, blue], 1)[..., :height, :width] / 255).clamp(0, 1)


def light(images: Tensor, generator: Generator) -> Tensor:
    """Exposure, gamma, contrast, tint, and colours faded as far as grey."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand(len(images), channels, 1, 1, generator=generator, device=images.device)
        return low + (high - low) * drawn

    result = images.clamp(1e-4, 1) ** draw(-0.7, 0.7).exp() * draw(0.6, 1.4) * draw(0.85, 1.15, channels=3)
    mean = result.mean((1, 2, 3), keepdim=True)
    result = mean + (result - mean) * draw(0.4, 1.3)
    grey = result.mean(1, keepdim=True)
    return (grey + (result - grey) * draw(0, 1.2)).clamp(0, 1)


def _uniform(images: Tensor, generator: Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(images), generator=generator, device=images.device)


def _randint(images: Tensor, generator: Generator, below: int) -> Tensor:
    return torch.randint(below, (len(images),), generator=generator, device=images.device)


def _resize(images: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    antialias = mode in ("bilinear", "bicubic") and size[0] < images.shape[-2]
    return F.interpolate(images, size=size, mode=mode, antialias=antialias)


def _filter(images: Tensor, response: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Multiplies each image's spectrum by its own `response` [B, h, w] to frequencies in cycles per pixel."""
    height, width = images.shape[-2:]
    margin = min(16, height - 1, width - 1)  # keeps one side of the picture from leaking round to the other
    padded = F.pad(images, (margin,) * 4, mode="reflect")
    rows, columns = padded.shape[-2:]
    fy = torch.fft.fftfreq(rows, device=images.device)[:, None]
    fx = torch.fft.rfftfreq(columns, device=images.device)
    spectrum = torch.fft.rfft2(padded) * response(fy, fx)[:, None]
    filtered = torch.fft.irfft2(spectrum, s=(rows, columns))
    return filtered[..., margin : margin + height, margin : margin + width].clamp(0, 1)


def _quantised(planes: Tensor, quality: Tensor, table: Tensor) -> Tensor:
    """Planes [B, C, H, W], sides multiples of 8, with their cosine transform rounded as at `quality` [B]."""
    batch, channels, height, width = planes.shape
    k = torch.arange(8, device=planes.device)
    basis = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1, 1, 1, 1) / 100
    steps = (table.to(planes) * scale).round().clamp(1, 255)
    blocks = planes.view(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    spectrum = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ spectrum @ basis).transpose(3, 4).reshape(planes.shape)
