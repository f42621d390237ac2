"""`make audit`: what is pinned is what is installed, licences are known, and silence is not taken for a clean bill."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import audit
from tests.audit import (
    CONSTRAINTS,
    AuditError,
    advisory_faults,
    ask_advisories,
    is_allowed,
    licence_faults,
    pin_faults,
    read_installed,
    read_licences,
    read_rules,
)
from tests.serving import Handler, serving

ADVISORY = {
    "id": "PYSEC-0000-1",
    "aliases": ["CVE-0000-1"],
    "summary": "a made-up fault",
    "affected": [{"package": {"name": "one", "ecosystem": "PyPI"}, "ranges": [], "versions": ["1.0"]}],
}


@contextmanager
def advisories(about: dict[str, list[Any]], status: int = 200) -> Iterator[list[str]]:
    """pip-audit's options for a service on loopback that knows these packages' advisories, in the form of OSV."""

    class Service(Handler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"vulns": about.get(asked["package"]["name"], [])}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with serving(Service) as port:
        yield ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/v1/query"]


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text("one==1.0\ntwo==2.0\n")
    return path


def test_an_advisory_is_told_and_can_be_dismissed_with_a_reason(pins: Path) -> None:
    with advisories({"one": [ADVISORY]}) as service:
        found = ask_advisories(pins, *service)
    (said,) = advisory_faults(found, {})
    assert said.startswith("one 1.0: CVE-0000-1, PYSEC-0000-1: mended in ")
    assert list(advisory_faults(found, {"CVE-0000-1": "the part that it is in is not used"})) == []
    assert list(advisory_faults(found, {"CVE-0000-2": "another"})) == [said]


def test_no_advisory_is_no_fault(pins: Path) -> None:
    with advisories({}) as service:
        assert list(advisory_faults(ask_advisories(pins, *service), {})) == []


@pytest.mark.parametrize("service", [["--osv-url", "http://127.0.0.1:9/v1/query"], None])
def test_a_service_that_does_not_answer_is_a_fault_in_one_line(service: list[str] | None, pins: Path) -> None:
    with advisories({}, status=500) as broken, pytest.raises(AuditError) as error:
        ask_advisories(pins, *(["--vulnerability-service", "osv", *service] if service else broken))
    said = str(error.value)
    assert said.startswith("the advisories could not be asked for: ")
    assert len(said.splitlines()) == 1
    assert len(said) < 400


def test_a_service_that_knows_no_package_at_all_is_a_fault(pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip-audit itself then says `No known vulnerabilities found`, and exits 0."""
    said = {"dependencies": [{"name": "one", "skip_reason": "not found"}, {"name": "two", "skip_reason": "not found"}]}
    (pins.parent / "pip-audit").write_text(f"#!{sys.executable}\nprint({json.dumps(said)!r})\n")
    (pins.parent / "pip-audit").chmod(0o755)
    monkeypatch.setattr(audit, "TOOLS", pins.parent)
    with pytest.raises(AuditError, match="could not be asked for: no answer for any of the 2 packages"):
        ask_advisories(pins)


def test_a_package_that_could_not_be_looked_up_is_a_fault() -> None:
    found: list[dict[str, Any]] = [
        {"name": "one", "skip_reason": "not found"},
        {"name": "two", "version": "2.0", "vulns": []},
    ]
    assert list(advisory_faults(found, {})) == ["one: not looked up: not found"]


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT AND BSD-3-Clause", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT License; BSD License", True),
        ("MIT License; GNU General Public License (GPL)", False),
        ("LicenseRef-NVIDIA-Proprietary", False),
        ("UNKNOWN", False),
        ("", False),
        ("Copyright 2015, all rights reserved.\nMIT", False),
    ],
)
def test_which_licences_are_allowed(licence: str, allowed: bool) -> None:
    assert is_allowed(licence, ["MIT", "BSD-3-Clause", "MIT License", "BSD License"]) == allowed


def test_an_exception_stands_for_one_statement_and_must_be_needed() -> None:
    exceptions = {"two-*": ["GPL-2.0-only", "why"], "three": ["UNKNOWN", "why"], "absent": ["X", "why"]}
    assert list(licence_faults({"one": "MIT", "two-x": "GPL-2.0-only", "three": "UNKNOWN"}, ["MIT"], exceptions)) == []
    found = list(licence_faults({"two-x": "GPL-3.0-only", "three": "MIT"}, ["MIT"], exceptions))
    assert found == [
        "two-x: its licence is none that pyproject.toml lists: GPL-3.0-only",
        "two-*: needs no exception any more in pyproject.toml, or another one",
        "three: needs no exception any more in pyproject.toml, or another one",
    ]


EXACT = pytest.mark.skipif("CI" not in os.environ, reason="what else a user installs is their own affair")
"""Where nothing is installed but what the project asks for."""


@EXACT
def test_every_installed_package_has_a_licence_that_is_listed() -> None:
    rules, licences = read_rules(), read_licences()
    assert {"torch", "dvc", "prefect", "pip", "setuptools"} <= set(licences)
    assert list(licence_faults(licences, rules["licences"], rules["exceptions"])) == []
    assert all(len(why) > 20 for _, why in rules["exceptions"].values())


@EXACT
def test_what_is_installed_is_what_is_pinned() -> None:
    assert list(pin_faults(CONSTRAINTS.read_text().split(), *read_installed())) == []


def test_what_is_not_pinned_is_told() -> None:
    installed = {"one": "1.0", "two": "2.1", "three": "3.0"}
    required = ["Five", "six; python_version < '3'", "seven; extra == 'more'"]
    found = list(pin_faults(["One==1.0", "two==2.0", "four>=4", "five==5", "six==6", "seven==7"], installed, required))
    assert found == [
        "four>=4: is not NAME==VERSION, or is there twice",
        "two 2.1 is installed, and 2.0 is pinned",
        "three 3.0 is installed, and no version is pinned",
        "five is pinned and needed, and not installed",
    ]
