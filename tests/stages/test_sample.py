import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan.data.batches import to_packed
from gan.data.packed import read_images
from gan.errors import InputError
from gan.networks.build import load_generator
from gan.sampling import draw_latents, generate
from gan.seeds import derive_seed
from stages.layout import CURVES, SAMPLE_FIGURES, SAMPLES, TRAINED, TRAINING_SUMMARY
from stages.sample import sample
from stages.train import train
from tests.stages.small_run import marked_squares, several_devices, small_params, write_trained

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / "manifest.json").read_text())
    return found


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_generator_of_any_run_is_sampled_alone() -> None:
    write_trained()
    given = Path("mine.safetensors")
    (TRAINED / "kept/00000010/generator.safetensors").rename(given)
    sample(small_params({"generator": "mine.safetensors", "count": 70}))
    generator, _ = load_generator(given, CPU)
    (expected,) = generate(generator, draw_latents(70, 4, derive_seed(0, "sample")), 70, [CPU])
    assert np.abs(read_images(SAMPLES, "images").astype(int) - to_packed(expected)).max() <= 1
    assert (manifest()["origin"], manifest()["generator"], manifest()["ema"]) == (
        "given generator",
        "mine.safetensors",
        None,
    )
    assert files(SAMPLE_FIGURES) == ["grid.png", "interpolation.png"]


def test_samples_are_dealt_to_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    write_trained()
    (TRAINED / "kept/00000010/generator.safetensors").rename("mine.safetensors")
    with several_devices(monkeypatch, 1) as workers:
        sample(small_params({"batch_size": 16, "generator": "mine.safetensors"}))
    alone = read_images(SAMPLES, "images").tobytes()
    assert set(workers) == {1}
    with several_devices(monkeypatch, 2) as workers:
        sample(small_params({"batch_size": 16, "generator": "mine.safetensors"}))
    assert workers[0] == 2
    assert read_images(SAMPLES, "images").tobytes() == alone


def test_images_from_elsewhere_become_the_samples() -> None:
    images = marked_squares(5, 0)[0]
    Path("mine").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image[:, :, 0]).save(f"mine/{index}.png")
    sample(small_params(samples="mine"))
    taken = read_images(SAMPLES, "images")
    assert sorted(image.tobytes() for image in taken) == sorted(image.tobytes() for image in images)
    assert (manifest()["origin"], manifest()["count"]) == ("given images", 5)
    assert files(SAMPLE_FIGURES) == ["grid.png"]


def test_nothing_is_trained_for_what_comes_from_elsewhere() -> None:
    for parameters in (small_params({"generator": "g.safetensors"}), small_params(samples="mine")):
        assert train(parameters) is None
        assert files(TRAINED) == ["not_trained.txt"]
        assert json.loads(TRAINING_SUMMARY.read_text()) == {}
        assert CURVES.read_text().strip() == ""


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sample": {"generator": "nowhere"}}, "^sample.generator: nowhere: no such file$"),
        ({"sample": {"generator": "bad"}}, "^sample.generator: bad is damaged or no generator's file"),
        ({"samples": "nowhere"}, "^evaluate.samples: nowhere: no such file or folder$"),
        ({"samples": "one"}, "^evaluate.samples: one holds one image, and scores take at least 2$"),
        ({"samples": "mixed"}, r"^evaluate.samples: '1\.png' has 8x8 pixels, and the real images 32x32"),
    ],
)
def test_bad_files_are_one_line_and_leave_what_was_there(parameters: dict[str, Any], message: str) -> None:
    Path("bad").write_bytes(b"no tensors")
    for name, sides in (("one", [32]), ("mixed", [32, 8])):
        Path(name).mkdir()
        for index, side in enumerate(sides):
            Image.new("L", (side, side)).save(f"{name}/{index}.png")
    SAMPLES.mkdir(parents=True)
    (SAMPLES / "before").touch()
    with pytest.raises(InputError, match=message) as caught:
        sample(small_params(**parameters))
    assert "\n" not in str(caught.value)
    assert files(SAMPLES) == ["before"]


def test_a_generator_of_another_size_is_refused() -> None:
    write_trained()
    (TRAINED / "kept/00000010/generator.safetensors").rename("mine")
    parameters = small_params({"generator": "mine"})
    parameters = parameters.model_copy(update={"data": parameters.data.model_copy(update={"image_size": 64})})
    with pytest.raises(InputError, match=r"32x32 pixels and 1 channels; set data\.image_size=32 and data\.channels=1"):
        sample(parameters)
