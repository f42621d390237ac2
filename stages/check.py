"""check: refuses bad parameters before DVC removes any earlier result.

DVC deletes a stage's outputs before it runs the stage's command, so a mistake that only `prepare` or `train` found
would cost the outputs that are there. This stage stands before all others and its output never changes.
"""

import logging

from gan.documents import shown
from gan.errors import InputError
from gan.params import Params, check_batch
from stages.hosts import check_training, sees_gpu
from stages.layout import CHECKED, PREPARED, REFERENCE, RESULTS, SAMPLES, TRAINED, own_file
from stages.stage import run_stage, write_file

log = logging.getLogger(__name__)


def check(params: Params) -> None:
    """Write the constant that says the parameters are valid; `run_stage` has checked all that they say by themselves.

    A given file must be there, and not in what the run replaces: DVC would remove it before it is read. That this
    machine cannot train so is only remarked, as the data may be for another one.
    """
    given = {"sample.generator": params.sample.generator, "evaluate.samples": params.evaluate.samples}
    for key, name in given.items():
        if name is not None and not _exists(key, name):
            raise InputError(f"{key}: {own_file(name)}: no such file or folder")
        for output in (PREPARED, REFERENCE, TRAINED, SAMPLES, RESULTS):
            if name is not None and own_file(name).resolve().is_relative_to(output.resolve()):
                raise InputError(f"{key}: {name} lies in {output}, which the run replaces; copy it elsewhere first")
    if params.hardware.devices != "auto":
        check_batch(params.train.batch_size, params.hardware.devices)
    if params.hardware.device == "cuda" and not sees_gpu():
        log.warning("check: hardware.device: cuda, but no GPU is visible here; this machine may refuse to compute")
    try:
        check_training(params)
    except InputError as error:
        log.warning("check: this machine will refuse to train: %s", error)
    write_file(CHECKED, "params.yaml is valid\n")


def _exists(key: str, name: str) -> bool:
    try:
        return own_file(name).exists()
    except OSError as error:
        raise InputError(f"{key}: {shown(name)}: {error.strerror}") from None


if __name__ == "__main__":
    run_stage("check", check)
