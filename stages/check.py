"""check: refuses bad parameters before DVC removes any earlier result.

DVC deletes a stage's outputs before it runs the stage's command, so a mistake that only `prepare` or `train` found
would cost the outputs that are there. This stage stands before all others and its output never changes.
"""

from gan.params import Params
from stages.layout import CHECKED
from stages.stage import run_stage, write_file


def check(_: Params) -> None:
    """Write the constant that says the parameters are valid; `run_stage` has checked them."""
    write_file(CHECKED, "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage("check", check)
