"""Whatever stands in params.yaml: it is taken as it is, or refused in one line that names the key."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan.documents import MOST_BYTES
from gan.errors import InputError
from gan.params import check_params, load_params
from tests.hostile import ALIKE, DEFAULT, FILES, LEAVES, LONGEST_MESSAGE, ROOT, SNIPPETS, VALUES, changed, rewritten


def fault(said: str, key: str | None = None) -> str:
    """What is wrong with a refusal; nothing where nothing is."""
    if len(said.splitlines()) != 1 or not said.isprintable():
        return f"not one printable line: {said[:200]!r}"
    if len(said) > LONGEST_MESSAGE:
        return f"{len(said)} characters: {said[:200]}"
    if key and key.rpartition(".")[2] not in said:
        return f"does not name {key}: {said}"
    return ""


def refusal(call: Callable[[], object]) -> str:
    """What it is refused with; nothing where it is accepted. All other errors go through."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


def verdict(document: Any, key: str) -> str:
    """Check the parameters, of which `key` was changed; what is wrong with what comes of it, if anything is."""
    try:
        params = check_params(document).model_dump()
    except InputError as error:
        return fault(str(error), key)
    taken, given = params, document
    for part in key.split("."):
        taken, given = taken[part], given[part]
    if taken != given or isinstance(taken, bool) != isinstance(given, bool):
        return f"{key}: {given!r} was taken as {taken!r}"
    json.dumps(taken, allow_nan=False)  # as for the digests of checkpoints and for dvc.lock
    return ""


@pytest.mark.parametrize("key", LEAVES)
def test_every_kind_of_value_in_the_place_of_every_value(key: str) -> None:
    faults = [verdict(changed(key, value), key) for value in VALUES]
    assert [said for said in faults if said] == []


@pytest.mark.parametrize("section", [section for section in DEFAULT if section != "seed"])
def test_every_kind_of_value_in_the_place_of_a_section(section: str) -> None:
    for value in VALUES:
        with pytest.raises(InputError) as error:
            check_params(changed(section, value))
        assert fault(str(error.value), section) == ""


@pytest.mark.parametrize(
    "name",
    ["", "0", "x", "seed\n", "\x1b[31m", "\u202e", "\ud800", "x" * 10**6, "a.b", "float", "list[x]", 1, None, (1, 2)],
)
@pytest.mark.parametrize("section", ["", "train"])
def test_a_key_too_many(section: str, name: Any) -> None:
    document = changed("seed", 0)
    (document[section] if section else document)[name] = 1
    with pytest.raises(InputError) as error:
        check_params(document)
    assert fault(str(error.value), section or None) == ""


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_pieces_of_yaml_in_the_place_of_a_value(number: int, tmp_path: Path) -> None:
    key = LEAVES[number * 7 % len(LEAVES)]
    path = tmp_path / "params.yaml"
    path.write_text(rewritten(key, SNIPPETS[number]), encoding="utf-8")
    said = refusal(lambda: load_params(path))
    assert not said or said.startswith(f"{path}: ")
    assert not said or fault(said.removeprefix(f"{path}: ")) == ""


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_no_parameters(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(FILES[name])
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: ") as error:
        load_params(path)
    assert fault(str(error.value).removeprefix(f"{path}: ")) == ""


@pytest.mark.parametrize("name", ALIKE)
def test_the_same_parameters_written_otherwise(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(ALIKE[name])
    assert load_params(path).model_dump() == DEFAULT


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, said in (("folder", "not a file"), ("pipe", "not a file"), ("loop", "Too many levels of symbolic links")):
        with pytest.raises(InputError, match=f"{name}: {said}"):
            load_params(tmp_path / name)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 0\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="Permission denied"):
        load_params(path)


MEASURE = """
import resource, sys
from pathlib import Path
from gan.errors import InputError
from gan.params import load_params
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_params(Path(sys.argv[1]))
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", ["laughs", "merged laughs", "nested lists", "a hundred megabytes"])
def test_a_bomb_costs_next_to_no_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with path.open("wb") as file:
        file.write(FILES.get(name, b""))
        file.truncate(100_000_000 if name not in FILES else len(FILES[name]))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    said, megabytes = done.stdout.splitlines()
    assert said.startswith(str(path))
    assert int(megabytes) < 60
    if name not in FILES:
        assert said == f"{path}: longer than {MOST_BYTES:,} bytes, and no such file has a reason to be"


TEXTS = st.text(st.characters(codec=None, categories=None), max_size=80)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.binary(max_size=9)
    | st.dates()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.none() | st.integers() | TEXTS, inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(LEAVES), ANYTHING, min_size=1, max_size=4))
def test_several_values_of_any_kind(values: dict[str, Any]) -> None:
    document = changed("seed", 0)
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (document[section] if section else document)[name] = value
    said = refusal(lambda: check_params(document))
    assert not said or fault(said) == ""


@given(ANYTHING)
def test_any_document_at_all(document: Any) -> None:
    with pytest.raises(InputError) as error:
        check_params({"x": document})
    assert fault(str(error.value)) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.crop", 100_000),
        ("generator.base", 4096),
        ("generator.init_std", 1e300),
        ("generator.init_std", 1e-300),
        ("discriminator.bn_mean", -1e300),
        ("train.epochs", 10**9),
        ("train.batch_size", 10**12),
        ("train.lr_g", 1e-300),
        ("train.beta1", 0.9999999999999999),
        ("train.beta2", 0.9999999999999999),
        ("train.r1_gamma", 1e308),
        ("train.r2_gamma", 1e308),
        ("train.gradient_penalty", 1e308),
        ("train.instance_noise", 1e308),
        ("train.instance_noise_kimg", 1e308),
        ("train.augment", ["colour"] * 11),
        ("train.n_dis", 10**9),
        ("train.ema_kimg", 1e308),
        ("train.checkpoint_seconds", 1e300),
        ("train.checkpoint_steps", 10**12),
        ("reference.images", 10**12),
        ("reference.batch_size", 10**12),
        ("sample.count", 10**15),
        ("sample.batch_size", 10**9),
        ("evaluate.trajectory", 10**12),
        ("data.path", "x" * 5000),
        ("data.path", "a\nb"),
        ("data.attribute", "Smiling\n"),
    ],
)
def test_what_can_only_be_a_mistake_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^params: {key}: .* is not allowed: ") as error:
        check_params(changed(key, value))
    assert fault(str(error.value)) == ""
