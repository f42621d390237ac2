"""What a run leaves on its page in Prefect: verdict, pictures, scores, and where the report is."""

import base64
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

REPORTS = Path(".atelier/reports")


def key(*words: str) -> str:
    """An artifact's key: lower-case letters, digits and dashes, as Prefect asks."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def picture(path: Path, title: str) -> str:
    """A PNG inside Markdown: pages of the server show no files."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"


def publish_run(home: Path, folder: Path, name: str, commit: str) -> None:
    """The artifacts of the experiment `name`, whose results lie in `folder`/results; its report is copied to `home`."""
    results = folder / "results"
    scores = json.loads((results / "scores.json").read_text())
    diagnosis = json.loads((results / "evaluation/diagnosis.json").read_text())
    report = publish_page(home, results / "report", f"{name}-{commit[:7]}", f"Report of {name}", key(name, "report"))
    evidence = "\n".join(f"- {line}" for line in diagnosis["evidence"])
    warnings = "".join(f"**{line}**\n\n" for line in scores.get("warnings", []))
    create_markdown_artifact(
        key=key(name, "verdict"),
        description=f"{name}: {scores['verdict']}",
        markdown=(
            f"# {name}: {scores['verdict']}\n\n{picture(results / 'samples/grid.png', 'samples')}\n\n"
            f"{warnings}{diagnosis['explanation']}\n\n{evidence}\n\n**Next:** {diagnosis['advice']}\n\n"
            f"{report}, with every figure beside what made it.\n\nRan commit `{commit}`. In the checkout:\n\n"
            f"```sh\ndvc exp show --all-commits\ndvc exp apply {name}\n```\n"
        ),
    )
    create_table_artifact(key=key(name, "scores"), description=f"Scores of {name}", table=score_rows(scores))


def publish_page(home: Path, folder: Path, name: str, title: str, artifact: str) -> str:
    """Keep the page in `folder` in `home` by `name`, and say in Markdown where.

    It is a link, and an artifact of the key `artifact` too, if ATELIER_REPORTS is where the pages are served.
    """
    kept = home / REPORTS / name
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
        copy = Path(shutil.copytree(folder, Path(temporary) / "page"))
        if kept.exists():
            kept.rename(Path(temporary) / "before")
        copy.rename(kept)
    server = os.environ.get("ATELIER_REPORTS")
    if not server:
        return f"{title}: `{kept / 'index.html'}`"
    address = f"{server.rstrip('/')}/{name}/index.html"
    create_link_artifact(key=artifact, link=address, link_text=title)
    return f"[{title}]({address})"


def score_rows(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a score, the details last: its value, its 95 % interval, and what held-out real images reach."""
    intervals, floor, details = (first_of(scores, name) for name in ("intervals", "floor", "details"))
    rows = []
    for name, value in {**scores, **details}.items():
        if isinstance(value, int | float | str):
            interval = " – ".join(f"{bound:.6g}" for bound in intervals.get(name, []))
            rows.append({"score": name, "value": value, "95 % interval": interval, "real images": floor.get(name, "")})
    return rows


def first_of(scores: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The one mapping in the list `name` of the scores, which is a list so that DVC makes no columns of it."""
    return dict((scores.get(name) or [{}])[0])


def numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that are single numbers, those of the details after the others."""
    every = {**scores, **first_of(scores, "details")}
    return {name: value for name, value in every.items() if isinstance(value, int | float)}
