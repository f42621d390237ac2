"""prepare: the source's own files in, the packed image set out."""

import os

from gan.params import Params
from stages.layout import PREPARED, RAW
from stages.stage import new_folder, run_stage


def prepare(params: Params) -> None:
    """Replace `data/prepared` by the packed image set, or leave it as it was if anything is wrong."""
    from gan.data import preparation

    with new_folder(PREPARED) as folder:
        preparation.prepare(
            RAW,
            folder,
            image_size=params.data.image_size,
            channels=params.data.channels,
            crop=params.data.crop,
            validation_fraction=params.data.validation_fraction,
            test_fraction=params.data.test_fraction,
            max_bad_fraction=params.data.max_bad_fraction,
            seed=params.seed,
            workers=len(os.sched_getaffinity(0)),
            attribute=params.data.attribute,
        )


if __name__ == "__main__":
    run_stage("prepare", prepare)
