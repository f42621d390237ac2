"""Weights of Inception v3 under their published names, but random: for tests of everything but what they see."""

from pathlib import Path

import torch
from torch import nn
from torchvision.models import Inception3


def random_weights(kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of the published file, `fid` or `imagenet`, of which the first has no counts of batches."""
    with torch.device("meta"):
        imagenet = kind == "imagenet"
        network = Inception3(1000 if imagenet else 1008, aux_logits=imagenet, init_weights=False)
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            for tensor, low, high in (
                (module.weight, 0.7, 1.3),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.7, 1.3),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=generator)
    weights = network.state_dict()
    return {name: tensor for name, tensor in weights.items() if imagenet or not name.endswith("num_batches_tracked")}


def write_random_inception(path: Path, kind: str, seed: int = 0) -> None:
    torch.save(random_weights(kind, seed), path)
