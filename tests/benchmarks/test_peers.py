from pathlib import Path

import pytest
import torch

from benchmarks import peers

SCRIPT = """
import os, sys
import torch
from torch import nn
os.makedirs("images", exist_ok=True)

class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Conv2d(1, 4, 4, 8)
        self.adv_layer = nn.Sequential(nn.Linear(64, 1), nn.Sigmoid())

    def forward(self, images):
        return self.adv_layer(self.model(images).flatten(1))

torch.manual_seed(0)
generator = nn.Sequential()
generator.l1 = nn.Linear(100, 32 * 32)
generator.shape = nn.Unflatten(1, (1, 32, 32))
discriminator = Judge()
for step in range(0 if "--n_epochs" in sys.argv else 100):
    print(f"[Epoch 0/1] [Batch {step}/100]")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "checkout" / peers.SCRIPT
    path.parent.mkdir(parents=True)
    path.write_text(SCRIPT)
    return path


def test_a_scripts_networks_are_trained_as_they_are(script: Path, tmp_path: Path) -> None:
    generator, discriminator = peers.networks_of(script, tmp_path)

    images = generator(torch.randn(3, 100))
    assert images.shape == (3, 1, 32, 32)
    logits = discriminator(images)
    assert logits.shape == (3,)
    features = discriminator.get_submodule("model")(images).flatten(1)
    assert torch.equal(logits, discriminator.get_submodule("last")(features).squeeze(1))  # before its sigmoid


def test_both_are_timed(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.arithmetic.hold_arithmetic", lambda _: None)
    changes = ["hardware.device=cpu", "hardware.threads=1"]

    assert peers.time_ours(script, tmp_path, 4, changes) > 0
    assert peers.time_peer(script, tmp_path, 8) > 0


def test_a_checkout_without_the_script_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main([str(tmp_path)])
    assert "dcgan.py: no such file; give a clone of https://github.com/" in capsys.readouterr().err
