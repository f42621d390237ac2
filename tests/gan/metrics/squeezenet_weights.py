"""Weights of SqueezeNet 1.1 as torchvision publishes them, but random: for tests of everything but what they see."""

from pathlib import Path

import torch
from torchvision.models import squeezenet1_1

ROOT = Path(__file__).parents[3]
TRAINED = ROOT.parent / "shared/data/weights/squeezenet1_1.pth"


def write_random_weights(path: Path, seed: int = 0) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(squeezenet1_1().state_dict(), path)
