"""A listener that runs, what GitHub and GitLab tell it, and what others would like to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from deploy.layout import Layout
from deploy.triggers import queue
from sandbox.bot_api import BotApi
from sandbox.shell import until
from tests.support import agent
from tests.support.agent import eventually
from tests.support.ports import free_port
from tests.support.webhooks import SECRET, github, gitlab, push

ROOT = Path(__file__).resolve().parents[3]
LONG = 60  # seconds that anything may take on a busy machine


@dataclass
class Host:
    """A folder as an application has it on its host, and where its listener is."""

    root: Path
    port: int

    @property
    def folder(self) -> Path:
        return Path(Layout(str(self.root)).queue)

    @property
    def secret(self) -> Path:
        return Path(Layout(str(self.root)).webhook_secret)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/deploy"

    def deploys(self, branch: str) -> None:
        """Tell it the branch that it deploys."""
        settings = {"deploy": {"root": str(self.root)}, "git": {"branch": branch}}
        (self.root / "plan.json").write_text(json.dumps({"settings": settings}))

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def argv(self, *command: str) -> tuple[str, ...]:
        words = (str(self.root / "plan.json"), f"127.0.0.1:{self.port}", *command)
        return (sys.executable, "-s", "-m", "deploy.triggers.listen", *words)

    def tell(self, body: bytes, headers: dict[str, str]) -> int:
        return requests.post(self.url, data=body, headers=headers, timeout=LONG).status_code

    def answers(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(self.url, timeout=LONG).status_code == 200
        return False

    def deployed(self, *shas: str) -> None:
        """Hold it to having deployed these, in the end, and to wanting nothing more."""
        assert until(lambda: self.lines("deployed") == list(shas), deadline=LONG, every=0.02)
        assert until(lambda: queue.wanted(self.folder) is None, deadline=LONG, every=0.02)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(tmp_path, free_port())
    found.folder.mkdir(parents=True)
    found.secret.write_text(SECRET)
    found.secret.chmod(0o600)
    found.deploys("main")
    return found


@contextmanager
def listening(host: Host, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = command or (sys.executable, "-m", "tests.support.webhooks", str(host.folder))
    with subprocess.Popen(
        host.argv(*argv),
        cwd=ROOT,
        env=environ(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            assert until(host.answers, deadline=LONG, every=0.05)
            yield process
            process.send_signal(signal.SIGINT)
            # 0 where whoever started the tests ignores SIGINT, as a shell does for a job with `&`.
            assert process.wait(LONG) in (0, 130, -signal.SIGTERM, -signal.SIGKILL)
        finally:
            process.kill()


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def refused(host: Host) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        host.argv(),
        cwd=ROOT,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    return done


def test_github_and_gitlab_are_heard_and_each_push_is_deployed(host: Host) -> None:
    with listening(host) as process:
        body = push(sha="a" * 40)
        assert host.tell(body, github(body)) == 202
        host.deployed("a" * 40)
        assert host.tell(push(sha="b" * 40), gitlab()) == 202
        host.deployed("a" * 40, "b" * 40)
        process.terminate()
        assert process.wait(LONG) in (0, -signal.SIGTERM)
    for name in ("wanted.json", "seen"):
        assert SECRET not in "".join(host.lines(name))


def test_it_does_not_start_without_a_secret_of_its_own(host: Host) -> None:
    host.secret.chmod(0o640)
    assert "Others may read" in refused(host).stderr
    host.secret.chmod(0o600)
    host.secret.write_text("short\n")
    assert "fewer than 16" in refused(host).stderr
    host.secret.unlink()
    assert "There is no secret" in refused(host).stderr


def test_what_is_hostile_is_refused_and_changes_nothing(host: Host) -> None:
    body = push()
    other = push("refs/heads/other")
    crafted = [
        "refs/heads/main; touch /tmp/pwned",
        "refs/heads/$(touch /tmp/pwned)",
        "--upload-pack=touch",
        "refs/heads/main\n",
        "refs/tags/main",
        "main",
        "refs/heads/../main",
        "refs/heads/\ud83d\ude00" * 9999,
    ]
    with listening(host):
        before = sorted(path.name for path in host.folder.iterdir())
        assert host.tell(body, {}) == 403
        assert host.tell(body, github(body, secret="wrong")) == 403
        assert host.tell(body, {**github(body), "X-Hub-Signature-256": "sha256=\xff"}) == 403
        assert host.tell(body + b" ", github(body)) == 403
        assert host.tell(body, gitlab(secret=f"{SECRET}x")) == 403
        assert host.tell(body, {**github(body), "X-GitHub-Event": "ping"}) == 200
        assert host.tell(body, {**github(body), "X-GitHub-Delivery": ""}) == 400
        assert host.tell(other, github(other)) == 200
        for ref in crafted:
            named = push(ref)
            assert host.tell(named, github(named)) == 200
        gone = push(sha="0" * 40)
        assert host.tell(gone, github(gone)) == 200
        for odd in (b"", b"no JSON", b"[]", b'{"ref": 1}', b"[" * 100_000):
            assert host.tell(odd, github(odd)) == 400
        assert requests.put(host.url, timeout=LONG).status_code == 405
        assert sorted(path.name for path in host.folder.iterdir()) == before
        assert host.tell(body, github(body)) == 202
        host.deployed("1" * 40)


def test_a_delivery_is_taken_once(host: Host) -> None:
    body, again = push(sha="a" * 40), push(sha="b" * 40)
    headers = github(body, "one")
    told = gitlab("one of GitLab's")
    with listening(host):
        assert host.tell(body, headers) == 202
        assert host.tell(body, headers) == 409
        assert host.tell(body, github(body, "its id is not signed")) == 409
        assert host.tell(again, github(again, "one")) == 409
        host.deployed("a" * 40)
        assert host.tell(body, told) == 202
        assert host.tell(body, told) == 409
    with listening(host):
        assert host.tell(body, headers) == 409
        assert host.tell(body, told) == 409
        host.deployed("a" * 40, "a" * 40)


def test_the_newest_push_wins_and_none_is_lost(host: Host) -> None:
    hold = host.folder / "hold"
    hold.touch()
    with listening(host):
        for sign in "abcd":
            body = push(sha=sign * 40)
            assert host.tell(body, github(body)) == 202
            assert until(lambda: bool(host.lines("begun")), deadline=LONG, every=0.02)
        hold.unlink()
        host.deployed("a" * 40, "d" * 40)


def test_a_kill_loses_nothing_and_leaves_the_deployment_alone(host: Host) -> None:
    hold = host.folder / "hold"
    hold.touch()
    with listening(host) as process:
        for sign in "ab":
            body = push(sha=sign * 40)
            assert host.tell(body, github(body)) == 202
            assert until(lambda: host.lines("begun") == ["a" * 40], deadline=LONG, every=0.02)
        os.killpg(process.pid, signal.SIGKILL)
    (host.folder / ".part.half").write_text("{")  # as a kill in the middle of a write leaves it
    assert queue.wanted(host.folder)
    with listening(host):
        assert host.lines("deployed") == []
        hold.unlink()
        host.deployed("a" * 40, "b" * 40)
    assert not list(host.folder.glob(".part.*"))


def test_a_deployment_that_is_killed_is_begun_again(host: Host) -> None:
    once = 'if [ ! -e "$1/killed" ]; then touch "$1/killed"; kill -9 $$; fi; exec "$2" -m "$3" "$1"'
    words = ("bash", "-c", once, "x", str(host.folder), sys.executable, "tests.support.webhooks")
    with listening(host, *words):
        body = push(sha="a" * 40)
        assert host.tell(body, github(body)) == 202
        assert until((host.folder / "killed").exists, deadline=LONG, every=0.02)
        other = push(sha="b" * 40)  # else it would be tried again a while later
        assert host.tell(other, github(other)) == 202
        host.deployed("b" * 40)


def test_a_thousand_at_once_do_not_bring_it_down(host: Host) -> None:
    bodies = [push(sha=f"{number:040x}") for number in range(1, 1001)]
    wrong = "not the secret at all"

    def tell(number: int) -> int:
        body = bodies[number]
        told = github(body) if number % 2 else github(body, secret=wrong)
        return host.tell(body, told)

    hold = host.folder / "hold"
    hold.touch()
    with listening(host), ThreadPoolExecutor(200) as pool:
        found = Counter(pool.map(tell, range(1000)))
        assert found == {202: 500, 403: 500}
        newest = queue.wanted(host.folder)
        assert newest
        hold.unlink()
        assert until(lambda: queue.wanted(host.folder) is None, deadline=LONG, every=0.02)
        assert host.lines("deployed")[-1] == newest.sha
        assert len(host.lines("deployed")) <= 2
        assert len(host.lines("seen")) == 1000  # of each its id and its body
        assert host.answers()


def test_a_thousand_open_connections_do_not_bring_it_down(host: Host) -> None:
    with listening(host), contextlib.ExitStack() as opened:
        for _ in range(900):  # of them we may have no more open ourselves
            link = opened.enter_context(socket.create_connection(("127.0.0.1", host.port)))
            link.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        body = push(sha="a" * 40)
        assert host.tell(body, github(body)) == 202
        host.deployed("a" * 40)


def answer(link: socket.socket) -> bytes:
    link.settimeout(LONG)
    with contextlib.suppress(ConnectionError):
        return link.recv(4096).partition(b"\r\n")[0]
    return b""


def test_what_is_too_large_is_not_read(host: Host) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with listening(host) as process:
        with socket.create_connection(("127.0.0.1", host.port)) as link:
            link.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 52428800\r\n\r\n")
            assert answer(link).startswith(b"HTTP/1.1 413")
        with socket.create_connection(("127.0.0.1", host.port)) as link:
            link.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(800):
                    link.sendall(chunk)
                pytest.fail("all of 50 MB was read")
        body = b"x" * 52_428_800
        with contextlib.suppress(requests.ConnectionError):
            assert host.tell(body, github(body)) == 413
        assert largest(process.pid) < 200_000
        assert host.answers()
        assert queue.wanted(host.folder) is None


def largest(pid: int) -> int:
    """Return the most memory that a process has had so far, in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_a_body_that_comes_too_slowly_is_let_go(host: Host) -> None:
    with (
        listening(host),
        socket.create_connection(("127.0.0.1", host.port)) as slow,
        ThreadPoolExecutor(1) as pool,
    ):
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n")
        found = pool.submit(answer, slow)
        with contextlib.suppress(OSError):
            while not found.done():
                slow.sendall(b"x")  # as slowly as the answers in between are quick
                assert host.answers()
        assert found.result().startswith(b"HTTP/1.1 408")


def test_it_says_when_the_queue_cannot_be_kept(host: Host) -> None:
    body = push()
    with listening(host):
        (host.folder / "lock").mkdir()
        assert host.tell(body, github(body)) == 503
        (host.folder / "lock").rmdir()
        assert host.tell(body, github(body)) == 202
        host.deployed("1" * 40)


def test_it_hears_at_a_socket_too(host: Host) -> None:
    path = host.root / "socket"
    argv = [word if word != f"127.0.0.1:{host.port}" else str(path) for word in host.argv("true")]
    with subprocess.Popen(argv, cwd=ROOT, env=environ()) as process:
        try:
            assert until(path.exists, deadline=LONG, every=0.05)
            assert until(lambda: stat.S_IMODE(path.stat().st_mode) == 0o666, deadline=LONG)
            words = ("curl", "-s", "--unix-socket", str(path), "http://x/")
            said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
            assert said.stdout == "listening\n"
        finally:
            process.kill()


@pytest.mark.parametrize(
    "said", [(SECRET, "main"), (SECRET, "release/2"), ("another", "main")], ids=" ".join
)
def test_the_master_has_the_newest_commit_deployed(
    host: Host, migrated_database: str, telegram: BotApi, tmp_path: Path, said: tuple[str, str]
) -> None:
    known, branch = said
    host.deploys(branch)
    more = {"DEPLOY_URL": host.url, "WEBHOOK_SECRET": known, "DEPLOY_BRANCH": branch}
    settings = agent.environment(migrated_database, telegram.url, **more)
    told = "it will be deployed" if known == SECRET else "it was not done (HTTP 403)"
    deployed = host.folder / "deployed"
    with listening(host), agent.running(settings, tmp_path / "agent.log"):
        telegram.say("/deploy")
        eventually(lambda: any(f"The newest commit of {branch}." in it for it in telegram.texts()))
        assert not deployed.exists()
        telegram.say("/approve 1")
        eventually(lambda: any(told in text for text in telegram.texts()))
        assert known != SECRET or until(deployed.exists, deadline=LONG, every=0.02)
    assert deployed.exists() == (known == SECRET)


def test_who_knows_nobody_that_deploys_says_so(
    migrated_database: str, telegram: BotApi, tmp_path: Path
) -> None:
    settings = agent.environment(migrated_database, telegram.url)
    with agent.running(settings, tmp_path / "agent.log"):
        telegram.say("/deploy")
        eventually(lambda: any("DEPLOY_URL is not set" in it for it in telegram.texts()))
