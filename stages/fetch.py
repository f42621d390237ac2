"""fetch: a source in, its own files, verified, out."""

from gan.params import Params
from stages.layout import DOWNLOADS, RAW, own_file
from stages.stage import new_folder, run_stage


def fetch(params: Params) -> None:
    """Replace `data/raw` by the source's files, or leave it as it was if anything is wrong with them.

    `data.path` is relative to the main repository, even in the temporary copy of an experiment.
    """
    from gan.data.fetching import fetch_source
    from gan.data.sources.source import Request

    given = params.data.path
    path = None if given is None else own_file(given)
    with new_folder(RAW) as folder:
        fetch_source(params.data.source, Request(path, params.data.checksum, DOWNLOADS), folder)


if __name__ == "__main__":
    run_stage("fetch", fetch)
