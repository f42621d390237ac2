"""Several processes do what one does with the whole batch."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gan.training import processes
from gan.training.checkpoints import list_checkpoints, load_checkpoint
from gan.training.processes import SeveredError, Stream
from tests.gan.training.test_loop import RELATIVISTIC, run
from tests.gan.training.together import together

CPU = torch.device("cpu")

# One step, whose gradients Adam's first moments then hold; and as many more as take the other branches.
CASES: dict[str, dict[str, Any]] = {
    "dcgan": {"r1_gamma": 1.0, "augment": ["colour", "translation", "cutout"], "ema_rampup": 0.05},
    "vanilla": {"name": "vanilla", "norm": "none", "loss": "least-squares", "instance_noise": 0.2},
    "cspup": {"name": "cspup", "norm": "spectral", "loss": "hinge", "real_label": 1.0, "fresh_latents": False},
    "wasserstein": {"norm": "none", "loss": "wasserstein", "real_label": 1.0, "gradient_penalty": 10.0, "n_dis": 2},
    "relativistic": {"norm": "none", **RELATIVISTIC, "r1_gamma": 0.5, "r2_gamma": 0.5, "penalty_interval": 2},
}


def train_all(folder: Path) -> None:
    """Each case for one step and for ten; what the first process keeps stays in `folder`."""
    for name, case in CASES.items():
        steps = case.get("n_dis", 1)
        run(folder / f"{name}-1", epochs=1, images=8 * steps, keep=1, grid_every=1, checkpoint_steps=0, **case)
        trained = run(folder / f"{name}-10", epochs=2, keep=0, log_every=1, checkpoint_steps=0, **case)
        if processes.rank() == 0:
            (folder / f"{name}-start.json").write_text(json.dumps(trained.start))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train_all(folder)
    return folder


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"shared-{request.param}")
    assert together(request.param, train_all, folder) == [0] * request.param
    return folder


def gradients(folder: Path, optimiser: str) -> list[torch.Tensor]:
    """Of the run's only step: Adam's first moments are those times 1 − beta1."""
    state = load_checkpoint(folder)
    assert state is not None
    return [moments["exp_avg"] * 2 for moments in state[optimiser]["state"].values()]


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_those_of_one_process_with_the_whole_batch(name: str, alone: Path, shared: Path) -> None:
    for optimiser in ("optimiser_d", "optimiser_g"):
        ours, theirs = gradients(shared / f"{name}-1", optimiser), gradients(alone / f"{name}-1", optimiser)
        largest = max(float(each.abs().max()) for each in theirs)
        assert largest > 1e-4
        for one, other in zip(ours, theirs, strict=True):
            assert float((one - other).abs().max()) < 2e-5 * largest


@pytest.mark.parametrize("name", CASES)
def test_curves_and_statistics_equal_those_of_one_process(name: str, alone: Path, shared: Path) -> None:
    ours, theirs = (load_checkpoint(folder / f"{name}-10") for folder in (shared, alone))
    assert ours is not None
    assert theirs is not None
    assert len(ours["curves"]) == 10
    for one, other in zip(ours["curves"], theirs["curves"], strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3, nan_ok=True)
    assert ours["curves"][0] == pytest.approx(theirs["curves"][0], rel=1e-4, abs=1e-6, nan_ok=True)
    for key in ("generator", "discriminator"):
        for layer, values in theirs[key].items():
            if "running" in layer:
                torch.testing.assert_close(ours[key][layer], values, rtol=2e-2, atol=2e-3)
    started = [json.loads((folder / f"{name}-start.json").read_text()) for folder in (shared, alone)]
    assert started[0] == pytest.approx(started[1], rel=1e-4)
    assert torch.equal(ours["stream"], theirs["stream"])
    assert torch.equal(ours["random"], theirs["random"])


def interrupted(folder: Path, kill_at: int) -> None:
    """Trains; the second process is killed in a forward pass, as if by the system."""
    run(folder, kill_at=kill_at if dist.get_rank() == 1 else 0, kill=lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_one_killed_ends_all_and_all_go_on_with_the_same_bits(tmp_path: Path) -> None:
    assert together(2, interrupted, tmp_path / "undisturbed", 0) == [0, 0]
    exits = together(2, interrupted, tmp_path / "killed", 20)
    assert exits[1] == -signal.SIGKILL
    assert exits[0] == 1
    (newest, *_) = list_checkpoints(tmp_path / "killed")
    assert "step-00000015" > newest.name[:13] > "step-00000000"
    assert together(2, interrupted, tmp_path / "killed", 0) == [0, 0]
    undisturbed, killed = (load_checkpoint(tmp_path / name) for name in ("undisturbed", "killed"))
    assert undisturbed is not None
    assert killed is not None
    assert bits_of(undisturbed) == bits_of(killed)


def bits_of(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, dict):
        return {key: bits_of(value) for key, value in state.items()}
    return [bits_of(each) for each in state] if isinstance(state, list) else repr(state)


def wait_for_others() -> None:
    while True:
        processes.average(torch.zeros(1000))


def severed(folder: Path) -> None:
    if dist.get_rank() == 1:
        os._exit(3)
    with pytest.raises(SeveredError, match=r"^the processes of this training have lost each other: "):
        wait_for_others()
    (folder / "told").touch()
    os._exit(0)


def test_a_process_learns_that_another_has_ended(tmp_path: Path) -> None:
    assert together(2, severed, tmp_path) == [0, 3]
    assert (tmp_path / "told").exists()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Dropout(0.4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(images).mean((1, 2, 3))
        return logits


def draw_small(folder: Path, batch_norm: bool) -> None:
    """A penalty on the gradient through batch norm and dropout: second derivatives, statistics, random numbers."""
    network = Small()
    processes.synchronise_layers(network, batch_norm)
    torch.manual_seed(1)
    stream = Stream(2, CPU)
    each = 8 // processes.count()
    found: dict[str, Any] = {}
    for turn in range(3):
        images = (stream.normal(each, 2, 6, 6) * 3 + 5).requires_grad_()
        logits = network(images)
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        network.zero_grad()
        (logits.square().mean() + slope.square().sum((1, 2, 3)).mean()).backward()
        processes.average_gradients(network)
        found |= {f"{turn} {name}": each.grad for name, each in network.named_parameters()}
        found[f"{turn} spread"] = processes.spread(images)
        found[f"{turn} images"] = images.detach()
        found[f"{turn} integers"] = stream.integers(0, 9, each, 2)
        found[f"{turn} uniform"] = stream.uniform(each, low=2, high=3)
    found |= network.state_dict()
    found |= {"evaluated": network.eval()(torch.ones(2, 2, 6, 6)).detach(), "shared": processes.share(slope, CPU)}
    torch.save(found, folder / f"{processes.rank()}.pt")


def test_layers_and_draws_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    draw_small(tmp_path, batch_norm=True)
    expected = torch.load(tmp_path / "0.pt")
    assert together(2, draw_small, tmp_path, True) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, values in expected.items():
        if name.endswith(("images", "integers", "uniform")):
            assert torch.equal(torch.cat([first[name], second[name]]), values)
        elif name == "shared":
            assert torch.equal(first[name], second[name])
        else:
            torch.testing.assert_close(first[name], values, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


def test_batch_norm_of_each_part_differs_from_that_of_the_whole(tmp_path: Path) -> None:
    draw_small(tmp_path, batch_norm=True)
    expected = torch.load(tmp_path / "0.pt")
    assert together(2, draw_small, tmp_path, False) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    slope = "0 layers.0.weight"
    assert torch.equal(first[slope], second[slope])
    assert not torch.allclose(first[slope], expected[slope], rtol=1e-3)
    assert not torch.equal(first["layers.1.running_mean"], second["layers.1.running_mean"])


def test_one_process_is_a_group_of_its_own() -> None:
    values = torch.randn(5)
    assert (processes.count(), processes.rank()) == (1, 0)
    assert processes.own(values).equal(values)
    assert processes.average(values) is values
    assert processes.share(values, CPU) is values
