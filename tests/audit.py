"""Holds what constraints.txt pins against published advisories, and the licences of all of it against pyproject.toml.

`python -m tests.audit`, or `make audit`: prints what it finds, a line each; exits 0 only if every pinned package was
looked up, none has an advisory, and each has a licence that pyproject.toml lists, or an exception with its reason.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, LicenseSymbol, LicenseWithExceptionSymbol, get_spdx_licensing
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TOOLS = Path(sys.executable).parent


class AuditError(RuntimeError):
    """The advisories could not be asked for; the message is one line."""


def read_rules() -> dict[str, Any]:
    """What pyproject.toml allows: `licences`, `exceptions` and `advisories`."""
    rules: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["audit"]
    return rules


def ask_advisories(constraints: Path, *service: str) -> list[dict[str, Any]]:
    """pip-audit's finding for each pinned package; `service` are options of its own that say whom it asks.

    Raises AuditError where nobody answered, for it passes packages that it could not look up.
    """
    # Pins are looked up as they stand: nothing is resolved or downloaded.
    command = ["pip-audit", "--requirement", str(constraints), "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:], "--progress-spinner", "off", *service],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise AuditError(f"the advisories could not be asked for: {' '.join(said.split())[:300]}") from None
    if all("skip_reason" in package for package in found):
        raise AuditError(f"the advisories could not be asked for: no answer for any of the {len(found)} packages")
    return found


def advisory_faults(found: Sequence[Mapping[str, Any]], dismissed: Mapping[str, str]) -> Iterator[str]:
    """A line for each advisory that is not dismissed, and for each package that could not be looked up."""
    for package in found:
        if "skip_reason" in package:
            yield f"{package['name']}: not looked up: {package['skip_reason']}"
        for advisory in package.get("vulns", []):
            names = {advisory["id"], *advisory.get("aliases", [])}
            if not names & set(dismissed):
                fixed = ", ".join(advisory.get("fix_versions", [])) or "no version yet"
                yield f"{package['name']} {package['version']}: {', '.join(sorted(names))}: mended in {fixed}"


def read_licences() -> dict[str, str]:
    """What each installed package states as its licence: an SPDX expression, or else classifiers, or else any text."""
    command = [
        str(TOOLS / "pip-licenses"),
        f"--python={sys.executable}",
        "--from=all",
        "--format=json",
        "--with-system",
    ]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    kinds = ("License-Expression", "License-Classifier", "License-Metadata")
    return {
        package["Name"]: next((package[kind] for kind in kinds if package[kind] != "UNKNOWN"), "UNKNOWN")
        for package in listed
    }


def licence_faults(
    licences: Mapping[str, str], allowed: Sequence[str], exceptions: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """A line for each package whose licence is neither allowed nor excepted, and for each needless exception."""
    needed = set()
    for name, licence in licences.items():
        if is_allowed(licence, allowed):
            continue
        why = {entry for entry, (stated, _) in exceptions.items() if fnmatch(name, entry) and stated == licence}
        needed |= why
        if not why:
            yield f"{name}: its licence is none that pyproject.toml lists: {' '.join(licence.split())[:200]}"
    for entry in exceptions:
        if entry not in needed and any(fnmatch(name, entry) for name in licences):
            yield f"{entry}: needs no exception any more in pyproject.toml, or another one"


def is_allowed(licence: str, allowed: Sequence[str]) -> bool:
    """Whether a licence is allowed: all those joined by AND, one of those joined by OR, all of several classifiers."""
    if all(part in allowed for part in licence.split("; ")):
        return True
    spdx = get_spdx_licensing()
    try:
        expression = spdx.parse(licence, validate=True)
    except ExpressionError:
        expression = None
    if expression is None:
        return False
    symbols = {
        symbol: spdx.TRUE if symbol.render() in allowed else spdx.FALSE
        for symbol in expression.get_symbols()
        if isinstance(symbol, LicenseSymbol | LicenseWithExceptionSymbol)
    }
    return bool(expression.subs(symbols, simplify=True).simplify() == spdx.TRUE)


def pin_faults(pins: Sequence[str], installed: Mapping[str, str], required: Sequence[str]) -> Iterator[str]:
    """A line for each package that is installed and not pinned as it is, and for each pin of one that is missing.

    pins: lines of constraints.txt. installed: versions by canonical name. required: requirements of the installed
    packages; a pin that none of them asks for here, as one for another Python, may be missing.
    """
    pinned: dict[str, str] = {}
    for line in pins:
        name, equals, version = line.partition("==")
        if not equals or not version or canonicalize_name(name) in pinned:
            yield f"{line}: is not NAME==VERSION, or is there twice"
        pinned[canonicalize_name(name)] = version
    for name, version in installed.items():
        if pinned.get(name) != version:
            yield f"{name} {version} is installed, and {pinned.get(name, 'no version')} is pinned"
    wanted = [Requirement(line) for line in required]
    names = {
        canonicalize_name(each.name) for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})
    }
    for name in pinned:
        if name in names and name not in installed:
            yield f"{name} is pinned and needed, and not installed"


def read_installed() -> tuple[dict[str, str], list[str]]:
    """The versions of the installed packages by canonical name, and what they require."""
    found = list(metadata.distributions())
    versions: dict[str, str] = {canonicalize_name(package.name): package.version for package in found}
    return versions, [line for package in found for line in package.requires or []]


def main() -> int:
    """Print what is wrong, a line each; the exit status."""
    rules = read_rules()
    faults = list(licence_faults(read_licences(), rules["licences"], rules["exceptions"]))
    faults += pin_faults(CONSTRAINTS.read_text(encoding="utf-8").split(), *read_installed())
    try:
        faults += advisory_faults(ask_advisories(CONSTRAINTS), rules["advisories"])
    except AuditError as error:
        faults.append(str(error))
    for fault in faults:
        print(f"audit: {fault}", file=sys.stderr)
    if not faults:
        print("audit: every package is pinned, without a known advisory, and under a licence that pyproject.toml lists")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
