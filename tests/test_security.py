"""What a stranger's words can do: in code, in commands, on pages, and to servers."""

import ast
import html.parser
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import get_current_settings

from flows import compare, evaluate, experiment, pipeline, setup, sweep
from flows.experiment import ExperimentError
from flows.workspace import find_commit, find_experiment
from gan.data.packed import read_manifest, write_manifest
from gan.params import check_params, load_params
from stages import layout
from stages.comparison import main as compare_pages
from stages.report import report
from tests.flows.conftest import free_port, wait_for
from tests.project import ROOT
from tests.stages.comparison_runs import entry, scores_of, write_comparison
from tests.stages.reported_run import DIAGNOSIS, SCORES, make_run, write_csv, write_json

MODULES = sorted(file for folder in ("flows", "stages", "gan", "benchmarks") for file in (ROOT / folder).rglob("*.py"))

UNSAFE_CALLS = set(
    """
    eval exec compile __import__ importlib.import_module os.system os.popen
    subprocess.getoutput subprocess.getstatusoutput pickle.load pickle.loads pickle.Unpickler marshal.load marshal.loads
    shelve.open dill.load dill.loads joblib.load cloudpickle.load cloudpickle.loads yaml.unsafe_load
    yaml.full_load tempfile.mktemp
    """.split()  # noqa: SIM905
)


def faults_of(tree: ast.AST) -> Iterator[str]:
    """Each call by which words become code."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        if name in UNSAFE_CALLS:
            yield f"{name} at line {node.lineno}"
        if options.get("shell", "False") != "False":
            yield f"shell={options['shell']} at line {node.lineno}"
        if name.endswith("load") and options.get("allow_pickle", "False") != "False":
            yield f"allow_pickle at line {node.lineno}"
        if name == "torch.load" and options.get("weights_only") != "True":
            yield f"torch.load without weights_only=True at line {node.lineno}"
        if name.rpartition(".")[2] == "YAML" and options.get("typ", "'rt'") not in ("'rt'", "'safe'"):
            yield f"YAML of type {options['typ']} at line {node.lineno}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_makes_code_of_words(file: Path) -> None:
    assert list(faults_of(ast.parse(file.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run('x', shell=True)",
        "subprocess.Popen(x, shell=flag)",
        "os.system('x')",
        "eval(x)",
        "pickle.loads(x)",
        "np.load(x, allow_pickle=True)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "YAML(typ='unsafe').load(x)",
    ],
)
def test_such_a_module_would_be_found(code: str) -> None:
    assert len(list(faults_of(ast.parse(code)))) == 1


# Commands.

HOSTILE = [
    *("--help", "--upload-pack=touch pwned;", "; touch pwned", "$(touch pwned)", "a\ntouch pwned", "x" * 300),
    *("\x1b[31mred", "-rf", "--output=pwned", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "../../pwned"),
    *("HEAD@{9}", "HEAD..HEAD", "HEAD^!", ":/nowhere", "refs/exps/x", "\u202e", "| touch pwned", "*", "~", "\u2028"),
    *("ext::sh -c touch% pwned", "${oc.env:HOME}", "<script>alert(1)</script>"),
]
FIRST = 7
"""So many of them are tried everywhere by default."""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit of what the flows' command lines read."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("params.yaml", "experiments.yaml", "dvc.yaml"):
        (home / name).write_bytes((ROOT / name).read_bytes())
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    for command in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "--message=x")):
        subprocess.run(["git", *command], cwd=home, check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", ".", "../origin"], cwd=home, check=True)
    subprocess.run(["git", "remote", "add", "origin", "../origin"], cwd=home, check=True)
    monkeypatch.chdir(home)
    return home


@contextmanager
def nothing_runs(home: Path) -> Iterator[None]:
    """Nothing that the words ask for comes to pass, and nothing is left in the checkout."""
    before = sorted(home.parent.rglob("*"))
    yield
    assert [path for path in sorted(home.parent.rglob("*")) if path not in before and ".git" not in path.parts] == []


def one_line(said: str) -> str:
    """What was said, if it is one short printable line."""
    lines = said.splitlines()
    assert len(lines) == 1, said[:500]
    assert lines[0].isprintable()
    assert len(lines[0]) < 2200
    return lines[0]


COMMAND_LINES: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "experiment": (experiment.main, ["WORD"]),
    "override of an experiment": (experiment.main, ["mnist-quick", "WORD"]),
    "pipeline": (pipeline.main, ["WORD"]),
    "override of a pipeline": (pipeline.main, ["mnist-quick", "WORD"]),
    "key of a pipeline": (pipeline.main, ["mnist-quick", "WORD=1"]),
    "remote of a pipeline": (pipeline.main, ["mnist-quick", "train.none=0", "--remote=WORD"]),
    "revision of a pipeline": (pipeline.main, ["mnist-quick", "train.none=0", "--revision=WORD"]),
    "compare": (compare.main, ["mnist-quick", "WORD"]),
    "remote of compare": (compare.main, ["mnist-quick", "--parallel=0", "--remote=WORD"]),
    "override of evaluate": (evaluate.main, ["mnist-quick", "train.epochs=WORD"]),
    "remote of evaluate": (evaluate.main, ["mnist-quick", "seed=1", "--remote=WORD"]),
    "sweep": (sweep.main, ["WORD", "train.lr_d=0.1,0.2", "--metric=x"]),
    "space of a sweep": (sweep.main, ["mnist-quick", "WORD=0.1,0.2", "--metric=x"]),
    "metric of a sweep": (sweep.main, ["mnist-quick", "train.lr_d=0.1,0.2", "--parallel=0", "--metric=WORD"]),
}


@pytest.mark.parametrize(
    "words", [HOSTILE[:FIRST], pytest.param(HOSTILE[FIRST:], marks=pytest.mark.slow)], ids=["some", "others"]
)
@pytest.mark.parametrize("name", COMMAND_LINES)
def test_a_hostile_word_ends_in_one_line_and_runs_nothing(
    name: str, words: list[str], checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main, arguments = COMMAND_LINES[name]
    for word in words:
        with nothing_runs(checkout):
            try:
                status = main([argument.replace("WORD", word) for argument in arguments])
            except SystemExit:  # argparse's, which takes the word for an option
                capfd.readouterr()
                continue
            said = capfd.readouterr()
            assert status == 1, word
            assert said.out == ""
            one_line(said.err)


NEEDED: dict[str, dict[str, Any]] = {
    "pipeline": {"experiment": "mnist-quick"},
    "compare": {"experiments": ["mnist-quick"]},
    "sweep": {"experiment": "mnist-quick", "space": {"train.lr_d": [0.1]}, "metric": "x"},
}


@pytest.mark.parametrize("parameter", ["remote", "revision"])
def test_a_deployments_parameters_are_no_options_of_commands(parameter: str) -> None:
    for flow in (pipeline.pipeline, compare.compare, sweep.sweep):
        for word in ["--upload-pack=touch pwned", "ext::sh -c id", "a\0b", "a\nb", "", "x" * 5000]:
            needed = NEEDED[flow.name]
            with pytest.raises(Exception, match=parameter):
                flow.validate_parameters(needed | {parameter: word})
        for word in [
            "origin",
            "main",
            "HEAD~2",
            "v1.0",
            "git@example.com:a/b.git",
            "https://example.com/a",
            "../there",
        ]:
            assert flow.validate_parameters(needed | {parameter: word})[parameter] == word


def test_a_revision_is_no_option_and_no_range_to_git(checkout: Path) -> None:
    for word in HOSTILE:
        if word != "HEAD^!":  # which is a commit without its parents
            with nothing_runs(checkout), pytest.raises(ExperimentError, match="knows no such commit"):
                find_commit(checkout, word)
    with pytest.raises(ExperimentError, match="no experiment is named --help"):
        find_experiment(checkout, "--help")


def test_overrides_reach_dvc_as_they_were_given(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = checkout.parent / "tools"
    tools.mkdir()
    script = f"#!{sys.executable}\nimport json, sys\nopen('../given', 'w').write(json.dumps(sys.argv[1:]))\n"
    (tools / "dvc").write_text(script)
    (tools / "dvc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    for word in HOSTILE[:FIRST]:
        assert experiment.main(["mnist-quick", f"data.path={word}"]) == 0
        given = json.loads((checkout.parent / "given").read_text())
        assert given[-2:] == ["--set-param", f"data.path={word}"]
        assert not list(checkout.parent.rglob("*pwned*"))


# Pages.

MARKUP = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}}",
    "{% raw %}",
    "javascript:alert(1)",
    "</style></script><b>",
    "&lt;i&gt;",
    "$x_1$ ${y}",
    "]]><!--",
]


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: elements, attributes that act, addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: dict[str, int] = {}
        self.acting: list[str] = []
        self.addresses: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] = self.elements.get(tag, 0) + 1
        self.acting += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "formaction")]

    def handle_data(self, data: str) -> None:
        self.shown += data


def check_page(text: str, plain: str, words: list[str]) -> None:
    """Hold a page of hostile words against one of plain words: the same elements, and the words as they are."""
    page, other = Page(text), Page(plain)
    assert page.elements == other.elements
    assert page.acting == other.acting
    assert all(
        address.startswith(("#", "data:image/", "data:text/csv", "data:application/json")) for address in page.addresses
    )
    for word in words:
        assert word in page.shown


def write_report(folder: Path, words: list[str]) -> str:
    """The report of a run in which these words stand wherever words may come from outside."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run()
        every = iter(words * 20)
        names = [f"{digit}{word}" for digit, word in zip(range(10), every, strict=False)]
        write_manifest(layout.PREPARED, replace(read_manifest(layout.PREPARED), classes=names))
        rows: list[tuple[object, ...]] = [(name, 0.1, 0.1) for name in names]
        write_csv(layout.EVALUATION_FIGURES / "classes.csv", ("class", "share_samples", "share_real"), rows)
        diagnosis = {key: next(every) for key in DIAGNOSIS} | {"evidence": words}
        write_json(layout.EVALUATION_FIGURES / "diagnosis.json", diagnosis)
        protocol = {"extractor": next(every), "versions": {next(every): next(every)}, next(every): [next(every)]}
        write_json(layout.SCORES, SCORES | {"verdict": next(every), "warnings": words, "protocol": [protocol]})
        document = load_params(Path("params.yaml")).model_dump()
        document["data"] |= {"source": "folder", "path": next(every), "checksum": None}
        document["evaluate"] |= {"extractor": "inception_v3", "weights": next(every)}
        report(check_params(document))
        return (layout.REPORT / "index.html").read_text()


def test_the_report_shows_words_from_outside_as_words(tmp_path: Path) -> None:
    plain = [f"word{number}" for number in range(len(MARKUP))]
    check_page(write_report(tmp_path / "hostile", MARKUP), write_report(tmp_path / "plain", plain), MARKUP)
    chart = (tmp_path / "hostile" / layout.REPORT / "classes.svg").read_text()
    assert "alert(1)" in chart
    assert not re.search("<(script|img|b)[ >]", chart)


def write_comparison_page(folder: Path, words: list[str]) -> str:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        entries = [
            entry(word, scores_of(1.0 + number, 0.05, verdict=word, warnings=[word]), data__path=word, **{word: word})
            for number, word in enumerate(words)
        ]
        write_comparison(Path("in"), entries, failed={f"x{word}": word for word in words}, refusal="")
        assert compare_pages(["in"]) == 0
        return Path("results/comparison/index.html").read_text()


@pytest.mark.slow
def test_the_comparison_shows_words_from_outside_as_words(tmp_path: Path) -> None:
    hostile = MARKUP[:4]
    plain = [f"word{number}" for number in range(len(hostile))]
    check_page(
        write_comparison_page(tmp_path / "hostile", hostile), write_comparison_page(tmp_path / "plain", plain), hostile
    )


# Servers.


def addresses_of(process: psutil.Process) -> set[str]:
    """The addresses that a process listens on."""
    return {found.laddr.ip for found in process.net_connections("inet") if found.status == psutil.CONN_LISTEN}


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", "/", skip_host=False)
    connection._buffer[0] = b"GET " + path.encode("utf-8", "surrogateescape") + b" HTTP/1.1"  # type: ignore[attr-defined]
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_reports_are_served_on_loopback_and_nothing_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATELIER_REPORTS", raising=False)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / setup.STATE).mkdir(parents=True)
    (tmp_path / "flows").symlink_to(ROOT / "flows")  # as in a checkout
    folder = tmp_path / ".atelier/reports"
    (folder / "run").mkdir(parents=True)
    (folder / "run/index.html").write_text("a report")
    (folder / "out").symlink_to(tmp_path)
    (folder / "file").symlink_to(tmp_path / "secret.txt")
    (folder / "loop").symlink_to("loop")
    (folder / "same").symlink_to("run")
    port = free_port()
    address = setup.ensure_reports(tmp_path, f"http://127.0.0.1:{port - 1}/api")
    try:
        process = setup.find(tmp_path, "reports")
        assert process is not None
        assert address == f"http://127.0.0.1:{port}"
        assert addresses_of(process) == {"127.0.0.1"}
        assert ask(port, "/run/index.html") == (200, b"a report")
        assert ask(port, "/same/index.html") == (200, b"a report")
        for path in (
            *("/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/.%2e/secret.txt"),
            *("//../secret.txt", "/..\\secret.txt", f"//{tmp_path}/secret.txt", f"/{tmp_path}/secret.txt"),
            *("/out/secret.txt", "/out/", "/out", "/file", "/loop", "/a%00b", "/%00", "/secret.txt%00.html", "/%ff%fe"),
            *("/run/../../secret.txt", "/" + "x" * 5000, "/" + "../" * 500 + "etc/passwd"),
        ):
            status, content = ask(port, path)
            assert status in (400, 404, 414), path
            assert b"secret" not in content.replace(b"secret.txt", b""), path
        wait_for(process.is_running, 1)
        log = (tmp_path / setup.STATE / "reports.log").read_text()
        assert "Traceback" not in log
    finally:
        setup.stop(tmp_path, "reports")


def test_the_server_of_prefect_is_started_on_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(setup, "start", lambda _home, _name, command, *_: started.append(list(command)))
    monkeypatch.setattr(setup, "answers", lambda _: False)
    assert get_current_settings().server.api.host == "127.0.0.1"
    monkeypatch.setattr(setup, "_check_free", lambda *_: None)
    assert setup.ensure_server(tmp_path).startswith("http://127.0.0.1:")
    (command,) = started
    assert command[command.index("--host") + 1] == "127.0.0.1"


def test_nothing_in_the_project_names_all_addresses() -> None:
    for file in [*MODULES, ROOT / "Makefile", ROOT / "prefect.yaml", ROOT / "prefect.toml"]:
        bound = [line for line in file.read_text().splitlines() if re.search(r"0\.0\.0\.0|--host\b|bind_all", line)]
        assert all("asked for, not bound to" in line or '"--host", host' in line for line in bound), file
