import re
from pathlib import Path
from typing import Any

import pytest

from gan.errors import InputError
from gan.params import Params
from stages import hosts
from stages.check import check
from stages.layout import CHECKED
from tests.stages.small_run import small_params


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_says_the_same_whatever_the_parameters() -> None:
    check(small_params())
    first = CHECKED.read_bytes()
    Path("mine/data/train").mkdir(parents=True)
    check(small_params({"generator": "mine/data/train"}))
    assert CHECKED.read_bytes() == first


@pytest.mark.parametrize("name", ["data/train/kept/00000010/generator.safetensors", "{here}/data/train/generator"])
def test_a_generator_that_the_run_would_remove_is_refused(name: str, tmp_path: Path) -> None:
    path = Path(name.format(here=tmp_path))
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(InputError, match=r"^sample\.generator: .* lies in data/train, which the run replaces; copy it"):
        check(small_params({"generator": name.format(here=tmp_path)}))
    assert not CHECKED.exists()


def test_so_are_samples_and_results_and_what_is_not_there() -> None:
    Path("results/samples").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"^evaluate\.samples: results/samples lies in results, which the run replaces"
    ):
        check(small_params(samples="results/samples"))
    with pytest.raises(InputError, match=r"^evaluate\.samples: nowhere: no such file or folder$"):
        check(small_params(samples="nowhere"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300, r"'x+\.\.\.x+': File name too long$"),
        ("x/" * 2040, r".*: File name too long$|.*no such file or folder$"),
        ("~nobody-of-this-name/x", r"~nobody-of-this-name/x: no such file or folder$"),
        ("$(touch broken)", r"\$\(touch broken\): no such file or folder$"),
    ],
)
@pytest.mark.parametrize("key", ["sample.generator", "evaluate.samples"])
def test_names_that_no_file_can_have(key: str, name: str, said: str) -> None:
    params = small_params({"generator": name}) if key == "sample.generator" else small_params(samples=name)
    with pytest.raises(InputError, match=f"^{re.escape(key)}: {said}") as error:
        check(params)
    assert str(error.value).isprintable()
    assert not list(Path().iterdir())


def test_a_link_that_leads_to_itself_or_into_the_outputs_is_refused() -> None:
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"^sample\.generator: loop: "):
        check(small_params({"generator": "loop"}))
    Path("data/train").mkdir(parents=True)
    Path("mine").symlink_to("data/train")
    with pytest.raises(InputError, match=r"^sample\.generator: mine lies in data/train, which the run replaces"):
        check(small_params({"generator": "mine"}))


def with_hardware(**values: Any) -> Params:
    params = small_params()
    return params.model_copy(update={"hardware": params.hardware.model_copy(update={"device": "auto"} | values)})


@pytest.mark.parametrize(
    ("gpus", "values", "said"),
    [
        ([], {"precision": "tf32"}, "hardware.precision: tf32, which is of GPUs, and none is visible here"),
        ([], {"precision": "bfloat16"}, "hardware.precision: bfloat16, which AVX2 has no instructions for"),
        (["GPU-a", "GPU-b", "GPU-c"], {"devices": "auto"}, "train.batch_size: 32 cannot be cut into 3 equal parts"),
        ([], {"compile": True}, "hardware.compile: true, but no C++ compiler is found here"),
    ],
)
def test_what_this_machine_cannot_train_is_remarked_if_anything_is_trained(
    gpus: list[str], values: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(hosts, "visible_devices", lambda: gpus)
    monkeypatch.setattr(hosts, "DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    params = with_hardware(**values)
    with pytest.raises(InputError, match=f"^{re.escape(said)}"):
        hosts.check_training(params)
    check(params)
    assert f"check: this machine will refuse to train: {said}" in caplog.text
    Path("images").mkdir()
    caplog.clear()
    check(params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"samples": "images"})}))
    assert not caplog.text


@pytest.mark.parametrize(("gpus", "remarked"), [([], True), (["GPU-a"], False)])
def test_a_gpu_that_is_asked_for_and_not_seen_is_remarked(
    gpus: list[str], remarked: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hosts, "visible_devices", lambda: gpus)
    monkeypatch.setattr(hosts, "DRIVER", tmp_path / "none")
    check(with_hardware(device="cuda"))
    assert ("hardware.device: cuda, but no GPU is visible here" in caplog.text) == remarked
    assert CHECKED.exists()


def test_a_batch_that_the_devices_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match=r"^train\.batch_size: 32 cannot be cut into 3 equal parts"):
        check(with_hardware(devices=3))
    assert not CHECKED.exists()


def test_where_a_driver_is_only_pytorch_knows_of_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hosts, "visible_devices", list)
    monkeypatch.setattr(hosts, "DRIVER", tmp_path)
    hosts.check_training(with_hardware(precision="tf32"))
