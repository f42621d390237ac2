"""The original GAN (Goodfellow et al. 2014, arXiv 1406.2661): two multilayer perceptrons on flattened images."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class VanillaGenerator(nn.Module):
    """Latent z, N×Z, to images N×C×S×S in [-1, 1]."""

    def __init__(self, z_dim: int, hidden: Sequence[int], image_size: int, channels: int) -> None:
        super().__init__()
        self.shape = (channels, image_size, image_size)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise([z_dim, *hidden]):
            layers += [nn.Linear(narrow, wide), nn.LeakyReLU(0.2, inplace=True)]
        layers += [nn.Linear(hidden[-1], channels * image_size * image_size), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [-1, 1], N×C×S×S, of latents N×Z."""
        images: Tensor = self.layers(z).unflatten(1, self.shape)
        return images


class VanillaDiscriminator(nn.Module):
    """Images N×C×S×S in [-1, 1] to logits N; above zero means real."""

    def __init__(self, hidden: Sequence[int], image_size: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in pairwise([channels * image_size * image_size, *hidden]):
            layers += [nn.Linear(wide, narrow), nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.3)]
        layers.append(nn.Linear(hidden[-1], 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N, of images N×C×S×S in [-1, 1]."""
        logits: Tensor = self.layers(images.flatten(1)).squeeze(1)
        return logits
