import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gan.errors import InputError
from gan.params import check_batch, check_params, load_params

ROOT = Path(__file__).parents[2]
DEFAULT: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")


def changed(key: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DEFAULT)
    *sections, name = key.split(".")
    section = document
    for part in sections:
        section = section[part]
    section[name] = value
    return document


def test_the_schema_and_params_yaml_hold_the_same_keys() -> None:
    assert load_params(ROOT / "params.yaml").model_dump() == DEFAULT


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed: -1 is not allowed: Input should be greater than or equal to 0"),
        ("seed", "0", "seed: '0' is not allowed: Input should be a valid integer"),
        ("seed", True, "seed: True is not allowed: Input should be a valid integer"),
        ("extra", 1, "extra: unknown key"),
        ("train.extra", 1, "train.extra: unknown key"),
        ("train", None, "train: None is not allowed"),
        (
            "data.source",
            "svhn",
            "data.source: 'svhn' is not allowed: Input should be 'mnist-5k', 'mnist', 'idx', 'celeba' or 'folder'",
        ),
        ("data.image_size", 33, "data.image_size: 33 is not a power of two from 32 to 256"),
        ("data.image_size", 512, "data.image_size: 512 is not a power of two from 32 to 256"),
        ("data.source", "folder", "data.path: null, but data.source folder reads a local folder; give its path"),
        ("data.path", "x", "data.path: 'x', but data.source mnist-5k is embedded and reads no path; use null"),
        ("data.checksum", "md5:12", "data.checksum: 'md5:12' is not allowed"),
        ("data.checksum", "md5:" + "0" * 32, "data.checksum: a digest is of one archive, for data.source folder or"),
        ("data.attribute", "Male", "data.attribute: 'Male', but only data.source celeba has attributes; use null"),
        ("generator.name", "cspup", "data.image_size: 32, but generator.name cspup is for 64 or 128"),
        ("discriminator.name", "avgpool", "data.image_size: 32, but discriminator.name avgpool is for 64 or 128"),
        (
            "discriminator.name",
            "vanilla",
            "discriminator.norm: batch, but discriminator.name vanilla has no batch norm",
        ),
        (
            "generator.right_scale",
            2,
            "generator.right_scale: 2 is not allowed: Input should be less than or equal to 1",
        ),
        ("train.loss", "relativistic", "discriminator.norm: batch, but train.loss relativistic compares single images"),
        ("train.r2_gamma", 1.0, "discriminator.norm: batch, but train.r2_gamma asks for penalties on single images"),
        ("train.gradient_penalty", 10.0, "discriminator.norm: batch, but train.gradient_penalty is on single images"),
        ("evaluate.trajectory", 1, "evaluate.trajectory: 1, but one image has no covariance; use 0, for none, or 2"),
        ("evaluate.weights", "w.pth", "evaluate.weights: 'w.pth', but evaluate.extractor classifier reads none"),
        ("data.channels", 2, "data.channels: 2 is not allowed: Input should be 1 or 3"),
        ("data.test_fraction", 1.0, "data.test_fraction: 1.0 is not allowed: Input should be less than 1"),
        ("data.test_fraction", 0.97, "data.test_fraction: validation_fraction + test_fraction must leave images"),
        ("generator.base", 0, "generator.base: 0 is not allowed: Input should be greater than or equal to 1"),
        ("generator.hidden", [], "generator.hidden: [] is not allowed: List should have at least 1 item"),
        ("generator.hidden", [16, "x"], "generator.hidden.1: 'x' is not allowed: Input should be a valid integer"),
        ("train.lr_d", float("nan"), "train.lr_d: nan is not allowed: Input should be a finite number"),
        ("train.lr_d", 0, "train.lr_d: 0 is not allowed: Input should be greater than or equal to 0.0000000001"),
        ("train.real_label", [1.2, 0.7], "train.real_label: [1.2, 0.7] is not [low, high] with 0 < low <= high <= 2"),
        ("train.real_label", "x", "train.real_label: 'x' is not allowed"),
        ("train.epochs", 1.5, "train.epochs: 1.5 is not allowed"),
        ("train.ema_kimg", 0, "sample.ema: true, but train.ema_kimg is 0, so there is no average to sample from"),
        ("data.test_fraction", 0.0, "data.test_fraction: 0, but evaluate.extractor classifier needs a test split"),
        ("evaluate.splits", 20_000, "evaluate.splits: 20000 parts of sample.count = 10000 images"),
        (
            "hardware.devices",
            0,
            "hardware.devices: 0 is not allowed: Input should be auto or a whole number from 1 to 1024",
        ),
        ("hardware.devices", "all", "hardware.devices: 'all' is not allowed: Input should be auto or a whole number"),
        ("hardware.device", "tpu", "hardware.device: 'tpu' is not allowed: Input should be 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_what_is_refused_is_named_in_one_line(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match="^params: " + re.escape(message)) as error:
        check_params(changed(key, value))
    assert "\n" not in str(error.value)


def test_labels_are_smoothed_only_where_the_loss_has_labels() -> None:
    document = changed("train.loss", "hinge")
    document["train"]["real_label"] = 0.9
    with pytest.raises(
        InputError, match=r"^params: train.real_label: 0.9, but train.loss hinge has no labels to smooth"
    ):
        check_params(document)


def test_the_wasserstein_loss_needs_a_penalty() -> None:
    document = changed("train.loss", "wasserstein")
    check_params(document)  # with R1
    document["train"]["r1_gamma"] = 0
    with pytest.raises(
        InputError, match=r"^params: train.gradient_penalty: 0, but train.loss wasserstein needs a hold"
    ):
        check_params(document)
    document["discriminator"]["norm"] = "spectral"
    check_params(document)


def test_a_latent_of_one_dimension_cannot_be_split() -> None:
    document = changed("generator.name", "cspup")
    document["generator"]["z_dim"] = 1
    document["data"]["image_size"] = 64
    with pytest.raises(
        InputError, match=r"^params: generator.z_dim: 1, but generator.name cspup splits z in two halves"
    ):
        check_params(document)


@pytest.mark.parametrize(("size", "parts"), [(9, 2), (2, 2), (100, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(size: int, parts: int) -> None:
    with pytest.raises(InputError, match=rf"^train.batch_size: {size} cannot be cut into {parts} equal parts of two"):
        check_batch(size, parts)
    check_batch(size, 1)


@pytest.mark.parametrize("key", ["seed", "train", "train.lr_g"])
def test_a_missing_key_is_named(key: str) -> None:
    document = changed(key, None)
    *sections, name = key.split(".")
    del (document[sections[0]] if sections else document)[name]
    with pytest.raises(InputError, match=f"^params: {key}: missing; params.yaml holds every key$"):
        check_params(document)


def test_a_misspelt_key_is_named() -> None:
    document = changed("train.batchsize", 64)
    del document["train"]["batch_size"]
    with pytest.raises(
        InputError, match=r"^params: train.batchsize: unknown key; did you mean batch_size\? \(and 1 more\)$"
    ):
        check_params(document)


def test_the_number_of_further_mistakes_is_told() -> None:
    document = changed("seed", -1)
    document["train"]["epochs"] = 0
    document["train"]["batch_size"] = 1
    with pytest.raises(InputError, match=r"^params: seed: .* \(and 2 more\)$"):
        check_params(document)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "not valid YAML"),
        (b"- 1\n", "must be a mapping of sections, and is list"),
        (b"", "must be a mapping of sections, and is NoneType"),
        (b"a: 1\na: 2\n", "not valid YAML"),
        (b"a: \xff\xfe\n", "not"),
        (b"a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_files_that_are_no_parameters_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_params(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_params(tmp_path / "params.yaml")


KEYS = [f"{section}.{key}" for section, keys in DEFAULT.items() if isinstance(keys, dict) for key in keys]
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(KEYS), ANYTHING)
def test_any_value_is_accepted_or_refused_in_one_line_that_names_a_key(key: str, value: Any) -> None:
    try:
        check_params(changed(key, value))
        message = f"params: {key}: accepted"
    except InputError as error:
        message = str(error)
    assert re.fullmatch(r"params: \w+(\.\w+)*: .+", message)


@pytest.mark.parametrize("written", ["1e-4", "1E-4", "0.0001", "1.0e-04"])
def test_small_numbers_are_numbers_however_they_are_written(written: str, tmp_path: Path) -> None:
    text = re.sub(r"lr_d: \S+", f"lr_d: {written}", (ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").train.lr_d == 1e-4


def test_every_named_experiment_is_valid() -> None:
    experiments = YAML(typ="safe", pure=True).load(ROOT / "experiments.yaml")
    for name, experiment in experiments.items():
        document = copy.deepcopy(DEFAULT)
        for key, value in experiment["set"].items():
            section, _, last = key.rpartition(".")
            target = document[section] if section else document
            assert last in target, f"{name} sets {key}, which params.yaml does not have"
            target[last] = value
        check_params(document, name)
