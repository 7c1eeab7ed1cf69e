"""Both command lines as processes, in a small project of their own on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
RUN = "2026-01-01_00-00-00"
TOOLS = ("inv", "fab")
MODULES = {"inv": ("invoke",), "fab": ("fabric", "-H", "local"), "fab alone": ("fabric",)}


@dataclass(frozen=True)
class Project:
    """A project that deploys to this machine, and has run once."""

    folder: Path
    host: Path

    def type(
        self, tool: str, *words: str, redirected: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Type a command on the host `local`, with its streams redirected by a shell."""
        module = MODULES[tool]
        return subprocess.run(
            ("sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-m", *module, *words),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder, host = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    shutil.copy(ROOT / "tasks.py", folder)
    shutil.copytree(ROOT / "fabfile", folder / "fabfile")
    settings = {
        "deploy": {"project": "none", "title": "None", "root": str(host)},
        "app": {"services": ["web"], "log_files": ["telegram", "reactive"]},
        "proxy": {"container": "no_such_proxy", "network": "no_such_network", "port": 1},
    }
    (folder / "invoke.yaml").write_text(yaml.safe_dump(settings))
    for name in ("logs/app", "records", "releases", "backups"):
        (host / name).mkdir(parents=True)
    log = host / "logs/run.log"
    log.write_text("the newest run\n")
    (host / "records" / f"{RUN}.json").write_text(json.dumps({"id": RUN, "log": str(log)}))
    (host / "logs/app/telegram.log").write_text("one\ngrün ✓\n")
    return Project(folder, host)


def refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 7, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    for text in says:
        assert text in done.stderr


def document(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return the error that a command printed for machines."""
    found: dict[str, object] = json.loads(done.stdout)
    assert set(found) == {"error", "code", "where", "next"}
    assert found["code"] == done.returncode == 7
    return found


@pytest.mark.parametrize(
    ("tool", "words", "shown"),
    [
        ("inv", ("deploy",), "the newest run\n"),
        ("fab", ("--name", "deploy"), "the newest run\n"),
        ("inv", ("telegram", "--lines", "1"), "grün ✓\n"),
        ("fab", ("telegram.log",), "one\ngrün ✓\n"),
    ],
)
def test_a_log_is_named_by_a_word(
    project: Project, tool: str, words: tuple[str, ...], shown: str
) -> None:
    done = project.type(tool, "logs", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_run_is_named_by_a_word_or_is_the_newest(project: Project, tool: str) -> None:
    for words in ((), ("2026-01",), (f"--run={RUN}",)):
        done = project.type(tool, "report", *words, "--json")
        assert json.loads(done.stdout)["id"] == RUN, done.stderr
    refused(project.type(tool, "report", "deploy"), "There is no run deploy")


@pytest.mark.parametrize("name", ["reactive"])
def test_a_log_file_that_is_not_there_yet_is_no_line_of_it(project: Project, name: str) -> None:
    path = project.host / f"logs/app/{name}.log"
    refused(project.type("inv", "logs", name), f"There is no file {path}", "next: inv logs")


def test_a_log_that_leads_elsewhere_is_not_shown(project: Project, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    path = project.host / "logs/app/reactive.log"
    path.symlink_to(tmp_path / "secret")
    for words in (("reactive",), ("reactive", "--follow")):
        refused(project.type("inv", "logs", *words), f"{path} is a link, which is not followed")
    path.unlink()
    refused(project.type("inv", "logs", "nothing"), "There is no log", "telegram.log, reactive.log")


def test_a_log_is_followed_across_rotations_and_never_elsewhere(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret\n")
    path = project.host / "logs/app/reactive.log"
    path.write_text("first\n")
    argv = (sys.executable, "-m", "invoke", "logs", "reactive", "-f")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        argv, cwd=project.folder, env=env, stdout=subprocess.PIPE, text=True
    ) as follower:
        try:
            assert follower.stdout
            assert follower.stdout.readline() == "first\n"
            path.rename(path.with_suffix(".log.1"))
            path.write_text("second\n")
            assert follower.stdout.readline() == "second\n"
            other = path.with_suffix(".new")
            other.symlink_to(tmp_path / "secret")
            other.rename(path)
            assert "secret" not in follower.communicate(timeout=60)[0]
            assert follower.returncode != 0
        finally:
            follower.kill()
            path.unlink()


@pytest.mark.parametrize(
    ("tool", "words", "says"),
    [
        ("inv", (), "next: inv history\n"),
        ("inv", ("--host", "local"), "next: inv history --host local\n"),
        ("fab", (), "next: fab -H local history\n"),
    ],
)
def test_what_to_type_next_acts_on_the_same_host(
    project: Project, tool: str, words: tuple[str, ...], says: str
) -> None:
    refused(project.type(tool, "report", "nothing", *words), says)
    found = document(project.type(tool, "report", "nothing", "--json", *words))
    assert found["next"] == says.removeprefix("next: ").strip()


GARBLED = {
    "no yaml": "a: [",
    "without an end": "&a {deploy: *a}",
    "too deep": "[" * 1000,
    "unknown key": "deploy: {hots: vps}",
}


@pytest.mark.parametrize("text", GARBLED.values(), ids=GARBLED)
def test_a_garbled_file_is_a_document_for_machines(
    project: Project, tmp_path: Path, text: str
) -> None:
    garbled = Project(tmp_path / "clone", project.host)
    shutil.copytree(project.folder, garbled.folder)
    (garbled.folder / "invoke.yaml").write_text(text)
    tool = TOOLS[len(text) % 2]
    done = garbled.type(tool, "status", "--json")
    assert "invoke.yaml" in str(document(done)["where"])
    assert done.stderr == ""


def test_invokes_own_keys_may_be_garbled_too(project: Project, tmp_path: Path) -> None:
    garbled = Project(tmp_path / "clone", project.host)
    shutil.copytree(project.folder, garbled.folder)
    with (garbled.folder / "invoke.yaml").open("a") as file:
        file.write("tasks: 3\n")
    found = document(garbled.type("inv", "report", "--json"))
    assert found["where"] == str(garbled.folder / "invoke.yaml")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("history", "--limit", "abc"), "--limit must be a whole number, not 'abc'"),
        (("history", "--limit", "0"), "--limit must be at least 1"),
        (("status", "--nonsense"), "--nonsense"),
        (("deploi",), "deploi"),
        (("restore",), "No idea what '--json' is!"),
        (("backup", "--keep", "0"), "--keep must be a number of days"),
    ],
)
def test_what_is_typed_wrong_is_a_document_for_machines(
    project: Project, words: tuple[str, ...], says: str
) -> None:
    done = project.type(TOOLS[len(says) % 2], *words, "--json")
    assert says in str(document(done)["error"])
    assert done.stderr == ""


def test_fab_without_a_host_is_a_document_for_machines(project: Project) -> None:
    done = project.type("fab alone", "status", "--json")
    assert document(done)["error"] == "fab needs a host"


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_a_good_run_is_one_when_nobody_reads_what_it_says(
    project: Project, redirected: str
) -> None:
    done = project.type("inv", "report", "--json", redirected=redirected)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: the output cannot be written to stdout: ")
    assert len(done.stderr.splitlines()) == 1
    done = project.type("inv", "report", "nothing", "--json", redirected=redirected)
    assert done.returncode == 7
    assert "Traceback" not in done.stderr


LOST = "warning: the output cannot be written to stdout: [Errno 32] Broken pipe\n"


@pytest.mark.parametrize(("words", "said"), [(("logs", "telegram"), LOST), (("--list",), "")])
def test_a_reader_that_has_gone_changes_no_code(
    project: Project, words: tuple[str, ...], said: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run(
            (sys.executable, "-m", "invoke", *words),
            cwd=project.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, said)


def test_a_terminal_that_knows_ascii_alone_gets_escapes(project: Project) -> None:
    done = project.type("inv", "logs", "telegram", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "one\ngr\\xfcn \\u2713\n"), done.stderr


def test_an_error_never_goes_to_stdout_when_stderr_is_closed(project: Project) -> None:
    for words in (("report", "nothing"), ("deploi",), ("history", "--limit", "x")):
        done = project.type("inv", *words, redirected="2>&-")
        assert (done.returncode, done.stdout) == (7, "")


@pytest.mark.parametrize(
    ("tool", "words"),
    [("inv", ("status",)), ("fab", ("smoke",)), ("inv", ("logs",)), ("fab", ("logs", "web"))],
)
def test_without_an_engine_nothing_is_made_up(
    project: Project, tool: str, words: tuple[str, ...]
) -> None:
    says = ("No Docker engine answers on local", "why:", "next: docker version")
    refused(project.type(tool, *words, **NO_ENGINE), *says)


def test_without_an_engine_there_is_no_status_for_machines(project: Project) -> None:
    found = document(project.type("inv", "status", "--json", **NO_ENGINE))
    assert str(found["error"]).startswith("No Docker engine answers on local: ")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an `inv` that says where it is and what it was told."""
    folder = tmp_path / "checkout"
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "bootstrap", folder)
    program = folder / ".venv/bin/inv"
    program.write_text('#!/bin/sh\necho "$PWD $*"\n')
    program.chmod(0o755)
    return folder


BECOME = "import runpy, sys; runpy.run_path(sys.argv[1])['become_inv'](['status', '--json'])"


@pytest.mark.parametrize("elsewhere", [".", "/"])
def test_bootstrap_acts_on_its_own_project(checkout: Path, elsewhere: str) -> None:
    done = subprocess.run(
        (sys.executable, "-c", BECOME, str(checkout / "bootstrap")),
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{checkout} status --json\n"), done.stderr


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    "words", [("deploy",), ("rollback",), ("backup",), ("backup.verify",), ("restore", "a.sql")]
)
def test_every_verb_that_may_find_the_lock_taken_can_wait(
    project: Project, tool: str, words: tuple[str, ...]
) -> None:
    done = project.type(tool, *words, "--wait", "-1")
    assert (done.returncode, done.stdout) == (7, "")
    assert "--wait must be a number of seconds" in done.stderr
