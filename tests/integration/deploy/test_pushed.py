"""A repository that deploys what is pushed to it: real pushes, to this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from deploy import lock
from deploy.library import bundle
from deploy.library import install as unpack
from deploy.outcome import Invalid
from deploy.session import Session, opened
from deploy.triggers import here, install, queue, service
from deploy.triggers.events import Push
from sandbox.shell import until
from tests.support.ports import free_port
from tests.support.webhooks import SECRET, github, push

ROOT = Path(__file__).resolve().parents[3]
LONG = 60  # seconds that anything may take on a busy machine
ANN = ("-c", "user.name=Ann", "-c", "user.email=ann@localhost")
MARK = b"deploy.triggers.work"


@dataclass(frozen=True)
class Machine:
    """A checkout, and a session on this machine, which it is pushed to."""

    session: Session
    checkout: Path

    @property
    def repository(self) -> str:
        return self.session.layout.pushed

    def git(self, *words: str) -> str:
        argv = ("git", "-C", str(self.checkout), *ANN, *words)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def begin(self, *refs: str) -> subprocess.Popen[str]:
        argv = ("git", "-C", str(self.checkout), "push", self.repository, *refs)
        return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def head(self) -> str:
        return self.git("rev-parse", "HEAD").strip()

    def records(self) -> list[dict[str, Any]]:
        folder = Path(self.session.layout.records)
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]

    def ended(self) -> bool:
        return (
            bool(self.records())
            and lock.look(self.session.target, self.session.layout.lock) is None
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """What is pushed has no compose file, so that its deployment is soon over."""
    checkout = tmp_path / "checkout"
    subprocess.run(("git", "init", "-q", "-b", "main", str(checkout)), check=True, timeout=LONG)
    root = tmp_path / "root"
    data = {
        "deploy": {"project": "pushed", "title": "X", "root": str(root), "minimum_free_mb": 1},
        "proxy": {"container": "no-such-door", "network": "no-such-network"},
    }
    (checkout / "invoke.yaml").write_text(yaml.safe_dump(data))
    with opened(checkout, "local", "inv", {}) as session:
        found = Machine(session, checkout)
        found.git("add", "--all")
        found.git("commit", "--quiet", "--message", "one")
        assert install.push_lacks(session)
        install.push(session)
        assert install.push_lacks(session) == ()
        yield found


def test_a_push_is_in_and_its_deployment_is_told(machine: Machine) -> None:
    said = machine.git("push", machine.repository, "main")
    assert "The commit has no compose file" in said
    assert "THE DEPLOYMENT FAILED (exit code 7)" in said
    inside = ("git", "-C", machine.repository, "rev-parse", "refs/heads/main")
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout.strip() == (
        machine.head()
    )
    (record,) = machine.records()
    assert (record["trigger"], record["sha"], record["code"]) == ("git push", machine.head(), 7)
    assert record["ref"] == "main"


def test_the_deployment_goes_on_when_the_pusher_is_gone_and_knows_nothing_of_git(
    machine: Machine,
) -> None:
    session = machine.session
    owner = session.run("backup", session.target).owner
    held = lock.take(session.target, session.layout, owner)
    with machine.begin("main") as process:
        try:
            assert process.stderr
            assert any("→ lock" in line for line in process.stderr)
            (found,) = [path for path in Path("/proc").glob("[0-9]*") if at_work(path, machine)]
            told = (found / "environ").read_bytes().split(b"\0")
            os.killpg(process.pid, signal.SIGINT)
            process.wait(LONG)
            assert machine.records() == []
        finally:
            held.give_back()
    names = [item.partition(b"=")[0] for item in told]
    assert b"PATH" in names
    assert not [name for name in names if name.startswith(b"GIT_")]
    assert until(machine.ended, deadline=LONG, every=0.1)
    (record,) = machine.records()
    assert (record["sha"], record["code"]) == (machine.head(), 7)


def test_it_answers_as_fab_would(machine: Machine) -> None:
    machine.git("push", machine.repository, "HEAD:refs/heads/other")
    copied = ("git", "-C", machine.repository, "branch", "main", "other")
    subprocess.run(copied, check=True, timeout=LONG)
    plan = f"{machine.session.layout.triggers}/plan.json"
    for lines, code, said in (
        (f"{'0' * 40} {machine.head()} refs/heads/main\n", 7, "THE DEPLOYMENT FAILED"),
        (f"{'0' * 40} {machine.head()} refs/heads/other\n", 0, "only main is"),
        (f"{machine.head()} {'0' * 40} refs/heads/main\n", 0, "main is gone"),
        ("", 0, "only main is"),
    ):
        done = subprocess.run(
            (sys.executable, "-s", "-m", "deploy.triggers.pushed", plan),
            cwd=ROOT,
            input=lines,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert said in done.stderr
    assert len(machine.records()) == 1


def at_work(process: Path, machine: Machine) -> bool:
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return MARK in words and machine.repository.encode()[:-8] in words


def test_whatever_its_name_no_other_branch_is_deployed(machine: Machine) -> None:
    names = [
        "other",
        "$(touch${IFS}pwned)",
        ";id",
        "`id`",
        "main2",
        "a'b\"c",
        "x/main",
        "--help",
        "ü",
    ]
    refs = [f"HEAD:refs/heads/{name}" for name in names]
    said = machine.git("push", machine.repository, *refs, "HEAD:refs/tags/main")
    assert "Nothing is deployed: only main is." in said
    assert machine.records() == []
    assert not list(Path(machine.repository).rglob("pwned"))
    kept = subprocess.run(
        ("git", "-C", machine.repository, "for-each-ref"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(kept.stdout.splitlines()) == len(refs) + 1


def test_a_branch_that_is_taken_away_is_not_deployed(machine: Machine) -> None:
    machine.git("push", machine.repository, "main")
    inside = ("git", "-C", machine.repository, "config", "receive.denyDeleteCurrent", "ignore")
    subprocess.run(inside, check=True, timeout=LONG)
    assert "main is gone" in machine.git("push", machine.repository, ":main")
    assert len(machine.records()) == 1


def test_it_is_made_once_and_mended_when_somebody_has_changed_it(machine: Machine) -> None:
    session, hook = machine.session, Path(machine.repository) / "hooks/post-receive"

    def mended() -> None:
        (lack,) = install.push_lacks(session)
        assert lack == f"have a push to {machine.repository} deploy"
        install.push(session)
        assert install.push_lacks(session) == ()

    before = hook.stat().st_mtime_ns
    install.push(session)
    assert hook.stat().st_mtime_ns == before
    hook.write_text("#!/bin/sh\n")
    mended()
    assert "deploy.triggers.pushed" in hook.read_text()
    assert hook.stat().st_mode & 0o777 == 0o755
    hook.chmod(0o644)
    mended()
    config = ("git", "-C", machine.repository, "config")
    subprocess.run((*config, "--unset", "receive.fsckObjects"), check=True, timeout=LONG)
    mended()
    (library,) = Path(session.layout.triggers, "lib").iterdir()
    library.rename(library.with_name("gone"))
    assert install.push_lacks(session) == ("bring the library that deploys",)
    said = machine.git("push", machine.repository, "main")
    assert "run inv setup again" in said
    assert machine.records() == []


def test_settings_that_the_host_was_not_told_are_told(machine: Machine) -> None:
    settings = machine.checkout / "invoke.yaml"
    settings.write_text(settings.read_text() + "tests: {coverage_threshold: 80}\n")
    with opened(machine.checkout, "local", "inv", {}) as session:
        assert install.push_lacks(session) == ("tell the host what is set in invoke.yaml",)
        install.push(session)
        assert install.push_lacks(session) == ()


def test_a_host_is_the_same_by_another_name_but_not_as_local(machine: Machine) -> None:
    plan = Path(machine.session.layout.triggers, "plan.json")

    def named(name: str) -> None:
        said = json.loads(plan.read_text())
        said["host"] = said["settings"]["deploy"]["host"] = name
        plan.write_text(json.dumps(said))

    with opened(machine.checkout, "local", "inv", {}) as session:
        named("vps")
        assert install.push_lacks(session)
        settings = session.settings
        deploy = settings.deploy.model_copy(update={"host": "root@vps"})
        reached = replace(session, settings=settings.model_copy(update={"deploy": deploy}))
        assert install.push_lacks(reached) == ()
        plan.write_text("garbage")
        assert install.push_lacks(reached)


@pytest.mark.parametrize("text", ["garbage", "{}", "[" * 100_000, '{"host": "", "settings": 1}'])
def test_a_plan_that_is_garbled_deploys_nothing_and_says_what_to_do(
    machine: Machine, text: str
) -> None:
    Path(machine.session.layout.triggers, "plan.json").write_text(text)
    said = machine.git("push", machine.repository, "main")
    assert "NOTHING IS DEPLOYED. What you have pushed is here all the same." in said
    assert "inv setup writes it anew" in said
    assert "Traceback" not in said
    assert machine.records() == []


def wanted(machine: Machine) -> int:
    """Deploy what the queue wants, as systemd has it done."""
    plan = f"{machine.session.layout.triggers}/plan.json"
    argv = (sys.executable, "-m", "deploy.triggers.work", "wanted", plan)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=LONG, check=False)
    return done.returncode


def test_what_cannot_be_begun_stays_wanted_and_what_fails_does_not(machine: Machine) -> None:
    folder, env = Path(machine.session.layout.queue), Path(machine.session.layout.env_file)
    queue.want(folder, Push(("a",), machine.head(), "ann"))
    env.write_text("garbage")
    assert wanted(machine) == 7
    assert queue.wanted(folder)
    assert machine.records() == []
    env.unlink()
    assert wanted(machine) == 0
    assert queue.wanted(folder) is None
    (record,) = machine.records()
    assert (record["trigger"], record["who"], record["code"]) == ("webhook", "ann", 7)


def test_others_may_read_the_library_as_soon_as_it_is_there(machine: Machine) -> None:
    library = Path(install.place_of(machine.session).library)
    assert library.stat().st_mode & 0o005 == 0o005
    assert not [path for path in library.rglob("*") if not path.stat().st_mode & 0o004]
    shutil.rmtree(library)
    machine.session.target.ask(unpack(bundle(*install.ALONG), str(library.parent)))
    assert library.stat().st_mode & 0o005 == 0o005


def test_a_listener_needs_somebody_who_keeps_it_running(machine: Machine) -> None:
    assert service.lacks(machine.session) == ()
    with pytest.raises(Invalid, match="is nothing to listen at"):
        here.listen(machine.session, "nowhere")


def test_who_listens_has_a_name_that_a_user_may_have(machine: Machine) -> None:
    settings = machine.session.settings
    for project, name in (("shop", "shop-hooks"), ("3shop", "_3shop-hooks")):
        deploy = settings.deploy.model_copy(update={"project": project, "root": "/"})
        named = settings.model_copy(update={"deploy": deploy})
        texts = service._texts(replace(machine.session, settings=named))
        assert f"\nUser={name}\n" in texts[f"{project}-listen.service"]
        assert "\nUser=root\n" in texts[f"{project}-deploy.service"]


def typed(machine: Machine, address: str, **more: str) -> subprocess.Popen[str]:
    """Type `inv listen` in the checkout."""
    shutil.copy(ROOT / "tasks.py", machine.checkout)
    argv = (sys.executable, "-m", "invoke", "listen", "--address", address)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.Popen(
        argv, cwd=machine.checkout, env=environ, stderr=subprocess.PIPE, text=True
    )


def test_inv_listen_deploys_what_a_webhook_tells_of(machine: Machine) -> None:
    origin = machine.checkout.parent / "origin.git"
    words = ("git", "clone", "-q", "--bare", str(machine.checkout), str(origin))
    subprocess.run(words, check=True, timeout=LONG)
    path = machine.checkout / "invoke.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["deploy"]["host"] = "elsewhere"  # what it is called by those who reach it over ssh
    path.write_text(yaml.safe_dump({**settings, "git": {"url": f"file://{origin}"}}))
    port = free_port()
    with typed(machine, f"127.0.0.1:{port}") as process:
        assert process.communicate(timeout=LONG)[1].startswith("error: There is no secret")
    assert process.returncode == 7
    with (
        socket.create_server(("127.0.0.1", port)),
        typed(machine, f"127.0.0.1:{port}", LISTEN_SECRET=SECRET) as process,
    ):
        said = process.communicate(timeout=LONG)[1]
    assert f"Nobody can listen at 127.0.0.1:{port}" in said
    assert "listening at" not in said
    assert process.returncode == 7
    body = push()
    with typed(machine, f"127.0.0.1:{port}", LISTEN_SECRET=SECRET) as process:
        try:
            assert process.stderr
            assert any("listening at" in line for line in process.stderr)
            url = f"http://127.0.0.1:{port}/"
            assert until(lambda: answers(url), deadline=LONG, every=0.1)
            told = requests.post(url, data=body, headers=github(body), timeout=LONG)
            assert told.status_code == 202
            assert until(machine.ended, deadline=LONG, every=0.1)
        finally:
            process.kill()
    (record,) = machine.records()
    assert (record["trigger"], record["who"], record["code"]) == ("webhook", "ann", 7)
    assert record["sha"] == machine.head()
    assert any("is not the one that this host was told" in item for item in record["warnings"])
    plan = json.loads(Path(machine.session.layout.triggers, "listen.json").read_text())
    assert plan["host"] == "elsewhere"
    folder = Path(machine.session.layout.queue)
    assert until(lambda: queue.wanted(folder) is None, deadline=LONG)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=LONG).status_code == 200
    except requests.ConnectionError:
        return False
