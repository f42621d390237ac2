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
    reference = json.loads((results / "reference.json").read_text())
    diagnosis = json.loads((results / "evaluation/diagnosis.json").read_text())
    link = publish_report(home, results / "report", name, commit)
    evidence = "\n".join(f"- {line}" for line in diagnosis["evidence"])
    create_markdown_artifact(
        key=key(name, "verdict"),
        description=f"{name}: {scores['verdict']}",
        markdown=(
            f"# {name}: {scores['verdict']}\n\n{picture(results / 'samples/grid.png', 'samples')}\n\n"
            f"{diagnosis['explanation']}\n\n{evidence}\n\n**Next:** {diagnosis['advice']}\n\n"
            f"{link}\n\nRan commit `{commit}`. In the checkout:\n\n"
            f"```sh\ndvc exp show --all-commits\ndvc exp apply {name}\n```\n"
        ),
    )
    create_table_artifact(key=key(name, "scores"), description=f"Scores of {name}", table=score_rows(scores, reference))


def publish_report(home: Path, report: Path, name: str, commit: str) -> str:
    """Keep the report in `home`, and say in Markdown where: as a link if ATELIER_REPORTS is where it is served."""
    kept = home / REPORTS / f"{name}-{commit[:7]}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
        copy = Path(shutil.copytree(report, Path(temporary) / "report"))
        if kept.exists():
            kept.rename(Path(temporary) / "before")
        copy.rename(kept)
    server = os.environ.get("ATELIER_REPORTS")
    if not server:
        return f"Report: `{kept / 'index.html'}`"
    address = f"{server.rstrip('/')}/{kept.name}/index.html"
    create_link_artifact(key=key(name, "report"), link=address, link_text=f"Report of {name}")
    return f"[The report]({address}), with every figure beside what made it"


def score_rows(scores: Mapping[str, Any], reference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a score: its value, and that of real images where it was measured."""
    rows = []
    for name, value in scores.items():
        if isinstance(value, int | float | str):
            floor = reference.get(f"floor_{name}", reference.get(f"real_{name}", ""))
            rows.append({"score": name, "value": value, "real images": floor})
    return rows
