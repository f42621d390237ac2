"""What another run of a commit made, held against the digests in its dvc.lock and the results committed beside it."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.differences import file_differences, leaves, share
from flows.experiment import ExperimentError

LOCK = "dvc.lock"
FILES = 50
"""How many files of one folder are compared in what they hold; the others only by their digests."""
NOT_THERE = "the committed bytes are not in DVC's cache to compare"
FINDINGS = 200
"""How many findings of one output are kept."""

Stages = Mapping[str, Any]
"""What dvc.lock holds of each stage: `cmd`, `deps`, `params` and `outs`."""
Verdict = Literal["identical", "other machine", "different", "missing", "unexpected", "stale"]


@dataclass(frozen=True)
class Output:
    """What became of one output of the pipeline; of dvc.lock itself where it is stale."""

    path: str
    verdict: Verdict
    how: Sequence[str] = ()
    """In what it differs and by how much, a line a finding."""


@dataclass(frozen=True)
class Place:
    """Where the bytes of a run lie: as files in `folder`, or in DVC's `cache`, by their digests."""

    folder: Path
    cache: Path

    def find(self, path: str, md5: str) -> Path | None:
        """The bytes of the output file `path`, as it lies in the folder or else with this digest in the cache."""
        places = (self.folder / path, self._cached(md5))
        return next((place for place in places if place.is_file()), None)

    def digests(self, path: str, md5: str) -> dict[str, str] | None:
        """The digest of each file below the output `path`, "" for the output itself if it is one; None if unknown."""
        there = self.folder / path
        if there.is_dir():
            files = sorted(file for file in there.rglob("*") if file.is_file())
            return {file.relative_to(there).as_posix(): file_md5(file) for file in files}
        if there.is_file():
            return {"": file_md5(there)}
        if not md5.endswith(".dir"):
            return {"": md5}
        try:
            return {file["relpath"]: file["md5"] for file in json.loads(self._cached(md5).read_text())}
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _cached(self, md5: str) -> Path:
        return self.cache / "files" / "md5" / md5[:2] / md5[2:]


def read_lock(text: str) -> Stages:
    """The stages of a dvc.lock. Raises ExperimentError if it is not of that form."""
    try:
        stages = YAML(typ="safe", pure=True).load(text)["stages"]
    except (YAMLError, TypeError, KeyError):
        stages = None
    if not isinstance(stages, Mapping) or not all(isinstance(stage, Mapping) for stage in stages.values()):
        raise ExperimentError(f"{LOCK}: not what DVC writes; run dvc repro and commit it")
    return stages


def outputs(stages: Stages) -> dict[str, str]:
    """The digest of each output, in the order of the stages."""
    return {out["path"]: out.get("md5", "") for stage in stages.values() for out in stage.get("outs", [])}


def compare_outputs(committed: Stages, reproduced: Stages, before: Place, after: Place) -> list[Output]:
    """A verdict on each output, in the order in which they were made.

    `reproduced` has the stages that ran. `before` has the committed files that git holds, and the cache of the others.
    """
    recorded, made = outputs(committed), outputs(reproduced)
    found = []
    for path, md5 in made.items():
        if path not in recorded:
            found.append(Output(path, "unexpected", [f"made, but not in {LOCK}"]))
        else:
            how = _differences(path, recorded[path], md5, before, after)
            more = [f"and {len(how) - FINDINGS} more"] if len(how) > FINDINGS else []
            found.append(Output(path, "different" if how else "identical", how[:FINDINGS] + more))
    return found + [Output(path, "missing", [f"in {LOCK}, but not made"]) for path in recorded if path not in made]


def _differences(path: str, recorded: str, made: str, before: Place, after: Place) -> list[str]:
    in_git = (before.folder / path).exists()
    if recorded == made and not in_git:
        return []
    ours, theirs = before.digests(path, recorded), after.digests(path, made)
    if ours is None or theirs is None:
        return [f"digest {recorded} → {made}; {NOT_THERE}"]
    how = _file_differences(path, ours, theirs, before, after)
    if recorded == made and how:
        how.append(f"{LOCK} has the digest of what was reproduced, not of the committed file")
    elif recorded != made and not how:
        how.append(f"what git holds is the same, but {LOCK} has another digest")
    return how


def _file_differences(
    path: str, ours: Mapping[str, str], theirs: Mapping[str, str], before: Place, after: Place
) -> list[str]:
    # JSON beside data mostly repeats the data's digests, so it comes last.
    names = sorted({*ours, *theirs}, key=lambda name: (name.endswith(".json"), name))
    differing = [name for name in names if ours.get(name) != theirs.get(name)]
    how = []
    for name in differing[:FILES]:
        if name not in theirs:
            lines = ["only in what was committed"]
        elif name not in ours:
            lines = ["only in what was reproduced"]
        else:
            lines = _of_one(f"{path}/{name}" if name else path, ours[name], theirs[name], before, after)
        how += [f"{name}: {line}" if name else line for line in lines]
    if len(differing) > FILES:
        how.append(f"and {len(differing) - FILES} more files")
    whole = not differing or names == [""]
    return how if whole else [f"{share(len(differing), len(names), 'files')} differ", *how]


def _of_one(path: str, recorded: str, made: str, before: Place, after: Place) -> list[str]:
    ours, theirs = before.find(path, recorded), after.find(path, made)
    if ours is None or theirs is None:
        return [f"digest {recorded} → {made}; {NOT_THERE}"]
    return file_differences(ours, theirs, path) or ["the committed bytes in DVC's cache are not those of their digest"]


def stale(committed: Stages, reproduced: Stages) -> list[str]:
    """Why the committed dvc.lock was not made by this commit: each reason, and the stages that it holds for.

    These ran with another command, other parameters or other code, or read what another run had made.
    """
    reasons: dict[str, list[str]] = {}
    for name, stage in reproduced.items():
        if name in committed:
            for reason in _reasons(committed, reproduced, name, stage):
                reasons.setdefault(reason, []).append(name)
    return [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()]


def _reasons(committed: Stages, reproduced: Stages, name: str, stage: Mapping[str, Any]) -> Iterator[str]:
    recorded = committed[name]
    if recorded.get("cmd") != stage.get("cmd"):
        yield f"command: {recorded.get('cmd')!r} recorded, {stage.get('cmd')!r} committed"
    before, now = _params(recorded), _params(stage)
    for key in sorted({*before, *now}):
        if key not in before or key not in now or before[key] != now[key]:
            values = (json.dumps(values[key]) if key in values else "nothing" for values in (before, now))
            yield f"{key}: {next(values)} recorded, {next(values)} committed"
    made = outputs(committed)
    then, today = ({dep["path"]: dep.get("md5") for dep in entry.get("deps", [])} for entry in (recorded, stage))
    for path in sorted({*then, *today}):
        if path not in then or path not in today:
            yield f"dependency {path} {'added' if path in today else 'removed'}"
        elif path in made and then[path] != made[path]:
            yield f"{path} of another run"
        elif then[path] != today[path] and not _is_made(path, {*made, *outputs(reproduced)}):
            yield f"other bytes of {path}"


def _params(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for values in stage.get("params", {}).values() for key, value in leaves(values)}


def _is_made(path: str, outs: Collection[str]) -> bool:
    return any(path == out or path.startswith(f"{out}/") for out in outs)


def summary(found: Sequence[Output]) -> str:
    """One line: how many outputs are identical, or which are not."""
    of = [output for output in found if output.verdict not in ("unexpected", "stale")]
    parts = []
    for verdict, said in (
        ("different", f"of {len(of)} outputs differ"),
        ("missing", f"of {len(of)} outputs missing"),
        ("unexpected", f"not in {LOCK}"),
    ):
        paths = [output.path for output in found if output.verdict == verdict]
        if paths:
            parts.append(f"{len(paths)} {said}: {first(paths, 5, ', ')}")
    parts += [f"{output.path} is stale: {first(output.how, 3)}" for output in found if output.verdict == "stale"]
    identical = sum(output.verdict == "identical" for output in found)
    return "; ".join(parts) or f"identical: {identical} outputs"


def first(items: Sequence[str], count: int, separator: str = "; ") -> str:
    """The first of the items on one line, and how many more there are."""
    more = [f"and {len(items) - count} more"] if len(items) > count else []
    return separator.join([*items[:count], *more])


def table(found: Sequence[Output]) -> str:
    """The verdicts in plain text, a line an output, and below it a line a finding."""
    width = max((len(output.path) for output in found), default=0)
    lines = []
    for output in found:
        lines.append(f"{output.path:{width}}  {output.verdict}")
        lines += [f"    {line}" for line in output.how]
    return "\n".join(lines)


def file_md5(path: Path) -> str:
    """MD5 of a file's bytes, as DVC has it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
