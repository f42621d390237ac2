"""DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434), for images of 32 to 256 pixels a side.

Feature maps are `8 * base` channels wide at 4x4 and halve with every doubling of the side, down to `base`.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional


def feature_width(base: int, side: int) -> int:
    """Channels of the feature maps of `side` x `side` pixels, in either network."""
    return max(base, base * 8 * 4 // side)


class DCGANGenerator(nn.Module):
    """Latent z, N×Z, to images N×C×S×S in [-1, 1]."""

    def __init__(self, z_dim: int, base: int, image_size: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(z_dim, feature_width(base, 4) * 4 * 4)
        blocks = OrderedDict[str, nn.Module]()
        side = 4
        while side < image_size // 2:
            width, wider = feature_width(base, side * 2), feature_width(base, side)
            side *= 2
            blocks[f"up{side}"] = nn.ConvTranspose2d(wider, width, 4, 2, 1, bias=False)
            blocks[f"norm{side}"] = nn.BatchNorm2d(width)
            blocks[f"relu{side}"] = nn.ReLU(inplace=True)
        blocks[f"up{image_size}"] = nn.ConvTranspose2d(feature_width(base, side), channels, 4, 2, 1, bias=False)
        blocks["tanh"] = nn.Tanh()
        self.blocks = nn.Sequential(blocks)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [-1, 1], N×C×S×S, of latents N×Z."""
        features = self.project(z).unflatten(1, (-1, 4, 4))  # N×8·base×4×4
        images: Tensor = self.blocks(features.contiguous(memory_format=torch.channels_last))
        return images


class DCGANDiscriminator(nn.Module):
    """Images N×C×S×S in [-1, 1] to logits N; above zero means real."""

    def __init__(self, base: int, image_size: int, channels: int, *, batch_norm: bool = True) -> None:
        super().__init__()
        blocks = OrderedDict[str, nn.Module]()
        width, side = channels, image_size
        while side > 4:
            narrower, width = width, feature_width(base, side // 2)
            blocks[f"down{side}"] = nn.Conv2d(narrower, width, 4, 2, 1, bias=False)
            if batch_norm and side != image_size:
                blocks[f"norm{side}"] = nn.BatchNorm2d(width)
            blocks[f"relu{side}"] = nn.LeakyReLU(0.2, inplace=True)
            side //= 2
        self.blocks = nn.Sequential(blocks)
        self.logit = nn.Linear(width * 4 * 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N, of images N×C×S×S in [-1, 1]."""
        features = self.blocks(images)  # N×8·base×4×4
        # It is the weights that are put in the order of channels-last features: there are fewer of them, and gradients
        # in another layout than the features take several times as long.
        weight = self.logit.weight.unflatten(1, features.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        logits = functional.linear(features.permute(0, 2, 3, 1).flatten(1), weight, self.logit.bias)
        return logits.squeeze(1)
