"""On what kinds of machine two runs of a commit were made, as the records of their stages say."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.differences import leaves
from flows.digests import NOT_THERE, Output, Place, Stages, first, outputs, summary

RECORDS = "results/records"
REPORT = "results/report"


def machine_differences(committed: Stages, reproduced: Stages, before: Place, after: Place) -> list[str]:
    """In what the machines differ, a line a fact, with the stages for which it holds; none where that is not known."""
    theirs, ours = _machines(committed, before), _machines(reproduced, after)
    found: dict[str, list[str]] = {}
    for stage in ours:
        if stage in theirs:
            then, now = theirs[stage], ours[stage]
            for key in sorted({*then, *now}):
                if then.get(key) != now.get(key):
                    line = f"{key}: {then.get(key, 'nothing')} committed, {now.get(key, 'nothing')} here"
                    found.setdefault(line, []).append(stage)
    return [f"{line} ({', '.join(stages)})" for line, stages in found.items()]


def judge(found: Sequence[Output], machines: Sequence[str]) -> tuple[list[Output], str]:
    """The verdicts, those that are owed to the machine told apart, and what they come to in one line.

    found: what `compare_outputs` says, with what is stale. machines: what `machine_differences` says.

    Another kind of machine shows in the records and the report, which name it; where all else is the same, it has the
    same results. Where more differs, that may come of the machine alone; on the same kind it may not.
    """
    judged = list(found)
    if machines:
        judged = [
            replace(output, verdict="other machine")
            if output.verdict == "different" and _owed_to_machine(output)
            else output
            for output in found
        ]
    said = summary(judged)
    differ = any(output.verdict == "different" for output in judged)
    if machines:
        kind = f"another kind of machine: {first(machines, 3)}"
        said += f"; that may be owed to {kind}" if differ else f"; the records and the report name {kind}"
    elif differ and any(output.path.startswith(f"{RECORDS}/") for output in found):
        said += "; the machine is of the same kind, so the results are other ones"
    return judged, said


def _owed_to_machine(output: Output) -> bool:
    """Whether an output differs in no more than what names the machine: records in that, the report in its page.

    The page is drawn from files that are all compared themselves.
    """
    if output.path.startswith(f"{RECORDS}/"):
        return all(re.match(rf"\[0\]\.(machine\.|inputs\.{RECORDS}/)", line) for line in output.how)
    page = rf"index\.html: |[\d,]+ of [\d,]+ files \(.*\) differ$|.*{NOT_THERE}$"
    return output.path == REPORT and all(re.match(page, line) for line in output.how)


def _machines(stages: Stages, place: Place) -> dict[str, dict[str, Any]]:
    """The facts of each stage's machine, by the stage's name; of the stages whose records can be read."""
    found = {}
    for path, md5 in outputs(stages).items():
        file = place.find(path, md5) if path.startswith(f"{RECORDS}/") else None
        facts = _facts(file) if file is not None else {}
        if facts:
            found[Path(path).stem] = facts
    return found


def _facts(file: Path) -> dict[str, Any]:
    try:
        machine = json.loads(file.read_text(encoding="utf-8"))[0]["machine"]
    except (ValueError, TypeError, KeyError, IndexError):
        return {}
    return dict(leaves(machine)) if isinstance(machine, Mapping) else {}
