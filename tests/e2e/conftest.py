"""A box, a developer's clone of this project, and a Bot API that both can reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import box as boxes
from sandbox import contents, telegram
from sandbox.bot_api import MASTER, TOKEN
from sandbox.box import Box
from sandbox.shell import must, until
from sandbox.vps import container
from sandbox.vps.container import First

ROOT = Path(__file__).resolve().parents[2]
AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@localhost")
PASSWORD = "Planted-Password-4711"
HOME = "/opt/server-agent-vnext"
LONGEST = (
    *("faults", "deploy", "shop", "bad_releases", "switch", "changes", "sweep", "interrupts"),
    *("rehearsal", "secrets", "data", "setup", "triggers"),
)
LONG = 300  # seconds that any of it may take on a busy machine


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything it wrote."""
        return self.out + self.err


@dataclass(frozen=True)
class Developer:
    """Somebody with a clone, who types what the README says."""

    box: Box
    clone: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def inv(self, *words: str, **env: str) -> Ended:
        """Type `inv ...`."""
        return self._type("invoke", *words, **env)

    def fab(self, *words: str, **env: str) -> Ended:
        """Type `fab -H vps ...`."""
        return self._type("fabric", "-H", "vps", *words, **env)

    @contextmanager
    def begun(self, verb: str, line: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Begin `inv VERB`, up to a line of its progress; kill it in the end if it still runs."""
        with subprocess.Popen(
            (sys.executable, "-m", "invoke", verb),
            cwd=self.clone,
            env={**clean(os.environ), **self.environment, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as run:
            assert run.stderr
            try:
                assert any(line in said for said in run.stderr), "it ended early"
                yield run
            finally:
                run.kill()

    def document(self, *words: str) -> Any:
        """Type `inv ... --json` and read what it prints."""
        done = self.inv(*words, "--json")
        assert done.code == 0, done.said
        return json.loads(done.out)

    def live(self) -> str:
        """Return the release that is live and healthy, empty when there is none."""
        found = self.document("status")
        return str(found["release"]["id"]) if found["healthy"] else ""

    def commit(self, name: str, text: str, *, append: bool = False) -> str:
        """Change a file, commit, and return the commit."""
        path = self.clone / name
        path.write_text(path.read_text() + text if append else text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", f"change {name}")
        return self.git("rev-parse", "HEAD")

    def back(self) -> None:
        """Go back to the commit before."""
        self.git("reset", "--quiet", "--hard", "HEAD~1")

    def git(self, *words: str) -> str:
        """Run git in the clone."""
        argv = ("git", "-C", str(self.clone), *AUTHOR, *words)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def on_host(self, text: str, *, check: bool = True) -> str:
        """Run a shell text in the box."""
        done = subprocess.run(
            self.box.ssh(text), capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def messages(self) -> list[str]:
        """Return what the Master was sent."""
        path = telegram.LOG
        text = self.on_host(f"docker exec {telegram.NAME} sh -c 'touch {path}; cat {path}'")
        accepted = [json.loads(line) for line in text.splitlines()]
        return [item["text"] for item in accepted if item["method"] == "sendMessage"]

    def _type(self, module: str, *words: str, **env: str) -> Ended:
        done = subprocess.run(
            (sys.executable, "-m", module, *words),
            cwd=self.clone,
            env={**clean(os.environ), **self.environment, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what would change a deployment, or who git thinks we are."""
    unwanted = (
        "TELEGRAM_",
        "MASTER_",
        "DATABASE_URL",
        "COVERAGE_THRESHOLD",
        "STARTUP_WAIT",
        "GIT_",
    )
    return {
        name: value
        for name, value in environ.items()
        if name != "CI" and not name.startswith(unwanted)
    }


@dataclass(frozen=True)
class Going:
    """A run that goes on by itself, and what it has said so far."""

    process: subprocess.Popen[bytes]
    said: Path

    def reach(self, line: str) -> None:
        """Wait for a line of its progress."""

        def there() -> bool:
            return line in self.said.read_text() or self.process.poll() is not None

        assert until(there, deadline=LONG, every=0.02)
        assert line in self.said.read_text(), self.said.read_text()

    def end(self) -> Ended:
        """Wait for its end."""
        self.process.wait(LONG)
        return Ended(self.process.returncode, "", self.said.read_text())


def newest(ann: Developer) -> tuple[str, str, int]:
    """Return what began the newest run, of which commit, and how it ended."""
    record = ann.document("history", "--limit", "1")[0]
    return record["trigger"], record["sha"], record["code"]


@contextmanager
def going(ann: Developer, said: Path, *argv: str, **env: str) -> Iterator[Going]:
    """Begin a deployment, or what the arguments say instead."""
    words = argv or ("-m", "invoke", "deploy")
    with (
        said.open("wb") as stream,
        subprocess.Popen(
            (sys.executable, *words),
            cwd=ann.clone,
            env={**clean(os.environ), "STARTUP_WAIT": "90", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        ) as process,
    ):
        try:
            yield Going(process, said)
        finally:
            process.kill()


def press(url: str, word: str) -> dict[str, Any]:
    """Press `approve` or `reject` below the newest question; return the message that asked."""
    asked = telegram.question(url)
    assert asked
    telegram.press(url, asked, word)
    return asked


def with_approval(ann: Developer, said: Path) -> Ended:
    """Type `inv deploy --require-approval`, and press Approve when the Master is asked."""
    words = ("-m", "invoke", "deploy", "--require-approval")
    with going(ann, said, *words, **ann.environment) as run:
        run.reach("waiting for the Master's word")
        press(ann.environment["TELEGRAM_API_BASE"], "approve")
        return run.end()


def change_settings(path: Path, change: Mapping[str, Mapping[str, Any]]) -> None:
    """Change sections of an invoke.yaml."""
    data = yaml.safe_load(path.read_text())
    for section, values in change.items():
        data[section] = {**data.get(section, {}), **values}
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: in the end no box shall wait for the other."""
    first = [f"test_{name}" for name in LONGEST]
    rank = {name: number for number, name in enumerate(first)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with a_box(tmp_path_factory.mktemp("box"), container.INIT) as found:
        yield found


@contextmanager
def a_box(folder: Path, first: First) -> Iterator[Box]:
    """Have a box, and what looks after all in it, while the block runs."""
    directory = folder / ".sandbox"
    try:
        yield boxes.up(directory, first)
    finally:
        boxes.down(directory)


@pytest.fixture(scope="module")
def empty_box(box: Box) -> Box:
    contents.reset(box)
    return box


@pytest.fixture(scope="module")
def bot_api(empty_box: Box) -> str:
    """A Bot API in the box: at port 80 for the agent, at 8080 of the box for us."""
    return telegram.start(empty_box)


@pytest.fixture(scope="module")
def developer(empty_box: Box, bot_api: str, tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A developer whose clone deploys to the box, with a quick gate."""
    clone = tmp_path_factory.mktemp("clone") / "project"
    subprocess.run(("git", "clone", "--quiet", str(ROOT), str(clone)), check=True, timeout=60)
    (clone / ".sandbox").symlink_to(empty_box.directory)
    found = Developer(
        empty_box,
        clone,
        {"TELEGRAM_API_TOKEN": TOKEN, "MASTER_CHAT_ID": MASTER, "TELEGRAM_API_BASE": bot_api},
    )
    found.git("remote", "remove", "origin")
    change_settings(
        clone / "invoke.yaml",
        {
            "deploy": {
                "host": "vps",
                "pass_env": ["DATABASE_URL", "TELEGRAM_API_TOKEN", "MASTER_CHAT_ID"],
            },
            "tests": {"coverage_threshold": 20},
            "smoke": {"watch_seconds": 2},
        },
    )
    gate = clone / "docker-compose-test.yml"
    gate.write_text(gate.read_text().replace("      - tests/integration\n", ""))
    example = clone / ".env.example"
    text = example.read_text().replace("https://api.telegram.org", telegram.inside(empty_box))
    example.write_text(text.replace("POSTGRES_PASSWORD=generate", f"POSTGRES_PASSWORD={PASSWORD}"))
    found.commit("VERSION", "for the box\n")
    return found


@pytest.fixture(scope="module")
def shop(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A developer with another application, deployed by configuration alone to an empty box."""
    contents.reset(box)
    clone = tmp_path_factory.mktemp("shop") / "project"
    shutil.copytree(ROOT / "tests/e2e/shop", clone)
    shutil.copytree(ROOT / "fabfile", clone / "fabfile")
    shutil.copy(ROOT / "tasks.py", clone)
    (clone / ".gitignore").write_text("__pycache__/\n.sandbox\n")
    (clone / ".sandbox").symlink_to(box.directory)
    subprocess.run(("git", "init", "--quiet", "-b", "main", str(clone)), check=True, timeout=60)
    found = Developer(box, clone)
    found.git("add", "--all")
    found.git("commit", "--quiet", "--message", "one")
    found.on_host("rm -rf /opt/shop")
    return found


@pytest.fixture(scope="module")
def two_releases(shop: Developer) -> Developer:
    """A developer with two good releases, the second of them live."""
    for number in (1, 2):
        shop.commit("web.py", f"# {number}\n", append=True)
        ended = shop.inv("deploy")
        assert ended.code == 0, ended.said
    return shop


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


def in_box(box: Box, text: str) -> str:
    """Run a shell text in the box, without a connection over SSH."""
    argv = ("docker", "exec", box.container, "bash", "-euo", "pipefail", "-c", text)
    return must(argv, deadline=60, next_step="docker ps").strip()


DROPPED = """
for peer in $(ss -Htn state established '( sport = :22 )' | awk '{print $4}'); do
  port=${peer##*:}
  iptables -I INPUT -p tcp --dport 22 --sport "$port" -j DROP
  iptables -I OUTPUT -p tcp --sport 22 --dport "$port" -j DROP
done
iptables -S | grep -c -- '--[ds]port 22 .*DROP'
"""
LET_THROUGH = """
for chain in INPUT OUTPUT; do
  while number=$(iptables -L "$chain" --line-numbers -n | awk '/DROP.*[ds]pt:22/ {print $1; exit}')
    [ -n "$number" ]
  do iptables -D "$chain" "$number"; done
done
"""


@contextmanager
def dropping(box: Box) -> Iterator[None]:
    """Drop every packet of the connections over SSH that there are now; new ones go through."""
    try:
        assert int(in_box(box, DROPPED)) >= 2
        yield
    finally:
        in_box(box, LET_THROUGH)
