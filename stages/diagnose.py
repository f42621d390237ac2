"""diagnose: whether a training that still runs is hopeless. It is no stage of dvc.yaml: it reads, and writes nothing.

`python -m stages.diagnose`, where `train` runs, prints as JSON what the curves so far say.
"""

import csv
import json
import sys

import numpy as np

from gan.data.packed import Images, read_images, read_manifest
from gan.diagnosis import Curve, diagnose
from gan.errors import InputError
from gan.hopeless import curves_alone, is_hopeless
from gan.params import load_params
from stages.layout import CURVES, PREPARED
from stages.record import PARAMS

SAMPLE = 256
"""Real images over which the spread is measured."""


def read_curves() -> dict[str, Curve]:
    """The columns of the curves so far, NaN where a term has no value; no column before the first row.

    Raises InputError where training has not written any.
    """
    if not CURVES.exists():
        raise InputError(f"{CURVES}: not there; training writes it with its first checkpoint")
    with CURVES.open(newline="") as file:
        header, *rows = csv.reader(file)
    columns = np.array([[float(value or "nan") for value in row] for row in rows]).reshape(len(rows), len(header)).T
    return dict(zip(header, columns, strict=True))


def spread(images: Images) -> float:
    """Standard deviation across images, mean over pixels, in units of [-1, 1], as `z_spread` is of generated ones."""
    some = np.asarray(images[:: max(1, len(images) // SAMPLE)], dtype=np.float32)
    return float(some.std(0, ddof=1).mean() / 127.5)


def main() -> int:
    """Print what the curves say; the exit status."""
    try:
        params = load_params(PARAMS)
        curves = read_curves()
        manifest = read_manifest(PREPARED)
        planned = params.train.epochs * (manifest.splits["train"].count // params.train.batch_size)
        hopeless = bool(curves) and is_hopeless(curves, planned, spread(read_images(PREPARED, "train")))
    except (InputError, OSError) as error:
        print(f"diagnose: {error}", file=sys.stderr)
        return 1
    step, kimg = (float(curves[name][-1]) if curves else 0.0 for name in ("step", "kimg"))
    found = diagnose(curves_alone(curves))
    said = {"verdict": found.verdict, "evidence": found.evidence, "hopeless": hopeless, "step": step, "kimg": kimg}
    print(json.dumps(said, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
