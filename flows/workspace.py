"""Where a flow runs an experiment: a clone of one commit, apart from the user's checkout but sharing its cache.

What the user edits meanwhile changes nothing here, and nothing here touches the user's files. Checkpoints, downloads
and TensorBoard's events lie in the checkout, as those of `dvc exp run --temp` do, so a run that was killed goes on in
the next workspace.
"""

import configparser
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.experiment import PARAMS, ExperimentError, check_keys, is_name, read_keys, read_params
from flows.processes import CommandError, environment, run
from gan.documents import shown
from gan.errors import one_line

WORKSPACES = Path(".atelier/workspaces")
GIVEN = (("data", "path"), ("evaluate", "samples"), ("evaluate", "weights"), ("sample", "generator"))
"""The parameters that name the user's own files, relative to the repository or not."""


class Workspace:
    """A checked-out commit in a folder of its own."""

    def __init__(self, home: Path, folder: Path, commit: str, root: Path) -> None:
        self.home = home
        self.folder = folder
        self.commit = commit
        self.root = root
        """Where checkpoints, downloads and events lie: the user's checkout, or the folder itself."""

    def environment(self, name: str) -> dict[str, str]:
        """What DVC and the stages of the experiment `name` run with."""
        return environment(
            DVC_ROOT=str(self.root), DVC_EXP_NAME=name, DVC_SITE_CACHE_DIR=str(self.folder / ".dvc/tmp/site")
        )

    def set_params(self, values: Mapping[str, Any]) -> None:
        """Change params.yaml, whose keys `values` names as `train.epochs`.

        Raises ExperimentError for a key that is not there.
        """
        path = self.folder / PARAMS
        check_keys(values, read_keys(path))
        yaml = YAML()
        params = yaml.load(path)
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            (params[section] if section else params)[name] = value
        yaml.dump(params, path)

    def params(self) -> dict[str, Any]:
        """What params.yaml holds."""
        return read_params(self.folder / PARAMS)

    def link_given(self) -> None:
        """Link the user's own files that params.yaml names relative to the checkout, and that git does not hold.

        Raises ExperimentError for a path that leads out of the checkout, where a clone elsewhere would look in vain.
        """
        params = self.params()
        for section, key in GIVEN:
            values = params.get(section)
            given = values.get(key) if isinstance(values, Mapping) else None
            if not isinstance(given, str) or Path(given).expanduser().is_absolute():
                continue
            there, here = self.home / given, self.folder / given
            if not Path(os.path.normpath(here)).is_relative_to(self.folder):
                raise ExperimentError(
                    f"{section}.{key}: {given} lies outside the repository, where a clone does not find it; "
                    f"give an absolute path"
                )
            if there.exists() and not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                here.symlink_to(there)

    def reference(self, name: str) -> str:
        """The git reference of the experiment `name` of this commit."""
        return reference_of(self.commit, name)

    def check_name(self, name: str) -> None:
        """Raise ExperimentError where `name` cannot name this experiment, as when another one has it."""
        if not is_name(name):
            raise ExperimentError(
                f"{shown(name)} cannot name an experiment: give it a name of at most 120 letters, digits, and . _ - "
                "between"
            )
        try:
            theirs = run("git", "show", f"{self.reference(name)}:{PARAMS}", folder=self.home)
        except CommandError:
            return
        if YAML(typ="safe", pure=True).load(theirs) != self.params():
            raise ExperimentError(
                f"an experiment {name} with other parameters hangs under {self.commit[:7]} already; "
                f"give another name, or `dvc exp remove {name}`"
            )

    def save(self, name: str) -> None:
        """Save what was run as the experiment `name`, which the user's checkout then lists; call it `alone`.

        Raises ExperimentError where another experiment has the name.
        """
        self.check_name(name)  # another run may have taken it meanwhile
        run("dvc", "exp", "save", "--force", "--name", name, folder=self.folder, **self.environment(name))
        reference = self.reference(name)
        kept = run("git", "for-each-ref", "--format=%(objectname)", reference, folder=self.home)
        # The same results again stay the same commit, so that whoever has it need not fetch it again. What differs
        # between two such is a note of DVC's own.
        if kept and not run("git", "diff", "--name-only", kept, reference, "--", ":!.dvc/tmp", folder=self.folder):
            return
        run("git", "push", "--quiet", "--force", str(self.home), reference, folder=self.folder)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Keep every other run waiting that has a result to keep in `home`."""
    path = home / ".atelier/results.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_home() -> Path:
    """The checkout that the flow runs from.

    Raises ExperimentError where this folder is none.
    """
    home = Path.cwd()
    if not (home / "dvc.yaml").exists() or not (home / ".git").exists():
        raise ExperimentError(f"{home}: no dvc.yaml in a git repository here; run from the project's own folder")
    return home


def find_commit(home: Path, revision: str, remote: str | None = None) -> str:
    """The full hash of the commit that `revision` names, fetched from the git remote `remote` where it is not here yet.

    Raises ExperimentError where it names none, CommandError where the remote cannot be asked.
    """
    commit = _resolve(home, revision)
    if not commit and remote:
        run("git", "fetch", "--quiet", remote, folder=home)
        commit = _resolve(home, revision)
    if not commit:
        raise ExperimentError(f"revision {shown(revision)}: git knows no such commit in {home}")
    return commit


def _resolve(home: Path, revision: str) -> str | None:
    try:
        return run("git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", folder=home)
    except CommandError:
        return None


def reference_of(baseline: str, name: str) -> str:
    """The git reference of the experiment `name` of the commit `baseline`."""
    return f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"


def find_experiment(home: Path, name: str, baseline: str | None = None) -> tuple[str, str]:
    """The commits of the experiment `name` and of its baseline, which is `baseline`, HEAD, or the only one that has it.

    Raises ExperimentError where there is none, or several.
    """
    listed = run("git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps", folder=home)
    found = {}
    for line in listed.splitlines():
        reference, commit = line.split()
        parts = reference.split("/")
        if len(parts) == 5 and parts[4] == name:
            found[parts[2] + parts[3]] = commit
    wanted = baseline or find_commit(home, "HEAD")
    if baseline is None and wanted not in found and len(found) == 1:
        (wanted,) = found
    if wanted in found:
        return found[wanted], wanted
    if baseline is None and found:
        raise ExperimentError(
            f"experiments named {one_line(name)} hang under several commits: {', '.join(sorted(found))}"
        )
    raise ExperimentError(f"no experiment is named {one_line(name)}; `dvc exp list --all-commits` lists them")


@contextmanager
def workspace(home: Path, commit: str, *, shared: bool = True) -> Iterator[Workspace]:
    """A new clone of `commit`, removed at the end of the block; a lock tells that somebody uses it.

    One that is not shared starts from nothing: it has a cache, checkpoints and downloads of its own, which go with it.
    """
    folder = home / WORKSPACES / f"{commit[:8]}-{os.getpid()}-{os.urandom(2).hex()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock_path = folder.with_suffix(".lock")
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            run("git", "clone", "--quiet", "--shared", "--no-checkout", str(home), str(folder), folder=home)
            run("git", "checkout", "--quiet", "--detach", commit, folder=folder)
            if shared:
                _share_cache(home, folder)
            else:
                _own_cache(folder)
            yield Workspace(home, folder, commit, home if shared else folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock_path.unlink(missing_ok=True)


def _share_cache(home: Path, folder: Path) -> None:
    """Give the clone the cache and the local settings of `home`; files are linked where the file system can."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(home / ".dvc/config.local")
    if not config.has_section("cache"):
        config.add_section("cache")
    config["cache"]["dir"] = f'"{run("dvc", "cache", "dir", folder=home)}"'  # quoted: a path may hold a comma or #
    config["cache"].setdefault("type", '"reflink,hardlink,copy"')
    shared = configparser.ConfigParser(interpolation=None)
    shared.read(home / ".dvc/config")
    for section in shared.sections():
        address = shared[section].get("url", "").strip('"')
        if address and "://" not in address and not Path(address).is_absolute():
            if not config.has_section(section):  # one that is relative to the checkout
                config.add_section(section)
            config[section].setdefault("url", f'"{home / ".dvc" / address}"')
    with (folder / ".dvc/config.local").open("w") as file:
        config.write(file)


def _own_cache(folder: Path) -> None:
    """Give the clone a cache of its own, whatever the settings of the project and of the user say."""
    config = configparser.ConfigParser(interpolation=None)
    config["cache"] = {"dir": "cache", "type": '"reflink,hardlink,copy"'}
    with (folder / ".dvc/config.local").open("w") as file:
        config.write(file)
