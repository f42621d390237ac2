"""The reference classifier: a small convolutional network whose features and probabilities the scores use."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from gan.data.batches import epoch_order, packed_batches, scale_to_float, to_float
from gan.metrics.classes import accuracy
from gan.seeds import derive_seed

EVALUATION_BATCH = 250
"""Images at a time outside training."""

MAX_ROTATION = math.radians(12)
MAX_SCALING = 0.1
MAX_SHIFT = 0.15
"""Bounds of the augmentation: radians, share of the size, and half image sides."""


@dataclass(frozen=True)
class Architecture:
    """The numbers that decide the network's shape; they travel with its weights."""

    image_size: int
    """Side in pixels, a power of two from 8."""
    channels: int
    classes: int
    base: int = 32
    """Channels of the first convolution; they double to `features` at most."""
    features: int = 128
    """Width of the features that the last, linear layer reads."""


class Classifier(nn.Module):
    """A convolution of stride 2 for each halving down to 4x4, a linear layer to the features, and one to the logits.

    Batch norm and ReLU follow each but the last. There is no pooling: the gradients of strided convolutions are
    deterministic on every device.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        halvings = int(math.log2(architecture.image_size // 4))
        widths = [min(architecture.base << level, architecture.features) for level in range(halvings)]
        layers: list[nn.Module] = []
        before = architecture.channels
        for width in widths:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            before = width
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(16 * before, architecture.features, bias=False),
            nn.BatchNorm1d(architecture.features),
            nn.ReLU(),
        )
        self.head = nn.Linear(architecture.features, architecture.classes)

    def features(self, images: Tensor) -> Tensor:
        """The features, N×D, of N×C×H×W images in [-1, 1]."""
        features: Tensor = self.body(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N×K, of N×C×H×W images in [-1, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits

    @property
    def batch(self) -> int:
        """Images at a time outside training."""
        return EVALUATION_BATCH

    @property
    def width(self) -> int:
        """Number of features."""
        return self.architecture.features

    @torch.inference_mode()
    def describe(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N×D) and class probabilities (N×K float64, rows sum to 1) of N×C×H×W uint8 images.

        Normalised by the running statistics, whatever the mode. Raises ValueError for images of another size or number
        of channels than the network was made for.
        """
        expected = (self.architecture.channels, self.architecture.image_size, self.architecture.image_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"images are {tuple(images.shape[1:])}, and the classifier was trained on {expected}")
        was_training = self.training
        self.eval()
        features = self.features(scale_to_float(images))
        probabilities: Tensor = self.head(features).double().softmax(1)
        self.train(was_training)
        return features, probabilities


@dataclass(frozen=True)
class LabelledImages:
    """Images, N×H×W×C uint8, and their class indices, N."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def train_classifier(
    train: LabelledImages,
    validation: LabelledImages | None,
    classes: int,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: torch.device,
) -> Classifier:
    """Train a classifier; the same arguments give the same weights, bit by bit, on one kind of machine.

    Adam, its rate falling from `lr` to zero along a half cosine; each image is slightly turned, scaled and shifted,
    afresh each time it is shown; images that do not fill a last batch are left out of an epoch. One line of log an
    epoch: the mean loss in nats, and the accuracy on `validation`, which decides nothing.

    train, validation: labels from 0 to classes - 1; at least two images to train on.
    lr: Adam's rate at the start.
    seed: decides the first weights, the order of the images and how each is changed.
    """
    size, channels = train.images.shape[1], train.images.shape[3]
    model = Classifier(Architecture(size, channels, classes))
    _initialise(model, torch.Generator().manual_seed(derive_seed(seed, "classifier", "weights")))
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    steps = max(1, len(train.images) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / (steps * epochs))) / 2
    )
    for epoch in range(epochs):
        order = epoch_order(len(train.images), derive_seed(seed, "classifier"), epoch)
        # On the CPU whatever the device, so that every device sees the same images.
        generator = torch.Generator().manual_seed(derive_seed(seed, "classifier", "augmentation", epoch))
        model.train()
        losses = []
        for step in range(steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            images = _augment(to_float(train.images[chosen], device), generator)
            labels = torch.from_numpy(train.labels[chosen]).to(device)
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        _report(model, epoch, epochs, float(torch.stack(losses).mean()), validation)
    return model.eval()


def save_classifier(path: Path, model: Classifier) -> None:
    """Write the weights as safetensors, with the architecture's numbers in the file's metadata."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # One entry only: the library writes several in random order, and equal weights must be equal files.
    save_file(weights, path, {"architecture": json.dumps(asdict(model.architecture), sort_keys=True)})


def load_classifier(path: Path, device: torch.device) -> Classifier:
    """Read what `save_classifier` wrote, in evaluation mode; the file holds numbers only, and no code is run."""
    with safe_open(path, framework="pt") as file:
        architecture = Architecture(**json.loads(file.metadata()["architecture"]))
    model = Classifier(architecture)
    model.load_state_dict(load_file(path))
    return model.to(device).eval()


def _initialise(model: Classifier, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(model.head.bias)


@torch.no_grad()
def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image slightly turned, scaled and shifted; what comes into view repeats the edge."""
    count = len(images)
    draws = torch.rand(4, count, generator=generator) * 2 - 1
    angle, scale = draws[0] * MAX_ROTATION, 1 + draws[1] * MAX_SCALING
    cosine, sine, shift = angle.cos() * scale, angle.sin() * scale, draws[2:] * MAX_SHIFT
    maps = torch.stack([cosine, -sine, shift[0], sine, cosine, shift[1]], 1).reshape(count, 2, 3)
    grid = functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _report(model: Classifier, epoch: int, epochs: int, loss: float, validation: LabelledImages | None) -> None:
    line = f"epoch {epoch + 1}/{epochs}: loss {loss:.4f}"
    if validation is not None:
        device = model.head.weight.device
        batches = packed_batches(validation.images, EVALUATION_BATCH, device)
        found = torch.cat([model.describe(images)[1] for images in batches])
        line += f", validation accuracy {accuracy(found.cpu().numpy(), validation.labels):.4f}"
    logging.getLogger(__name__).info(line)
