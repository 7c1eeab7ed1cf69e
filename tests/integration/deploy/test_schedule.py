"""A backup each day: installed on this machine, and started as cron would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import backups, lock
from deploy import host as hosts
from deploy.dotenv import write_env
from deploy.outcome import Invalid
from deploy.postgres import backup
from deploy.postgres.access import Database
from deploy.schedule import install, systemd, work
from deploy.session import Session, opened
from sandbox import bot_api
from sandbox.bot_api import MASTER, TOKEN, BotApi
from tests.support.container import SECRET, docker

# One that keeps its table in a file, and says what the real one says.
CRONTAB = """#!/bin/sh
table=$(dirname "$0")/../table
case $1 in
  -l) if [ -e "$table" ]; then cat "$table"; else echo 'no crontab for ann' >&2; exit 1; fi ;;
  -) cat >"$table.part"; mv "$table.part" "$table" ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
folder=$(dirname "$0")/..
echo "$*" >>"$folder/told"
case "$*" in
  "is-"*) test -e "$folder/on" ;;
  "enable "*) touch "$folder/on" ;;
  "disable "*) rm -f "$folder/on" ;;
esac
"""
ROOT = Path(__file__).resolve().parents[3]
OTHERS = b"MAILTO=ann\n\xff not UTF-8, and without an end"


@dataclass(frozen=True)
class Machine:
    """This machine, with programs of its own that come first."""

    folder: Path
    root: Path

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def table(self) -> Path:
        return self.folder / "table"

    def line(self) -> str:
        """Return the command of the one line that is ours, as cron hands it to a shell."""
        (line,) = (
            item for item in self.table.read_bytes().splitlines() if b"schedule.work" in item
        )
        return line.decode().split(" ", 5)[5].replace(r"\%", "%")

    def start(self) -> subprocess.CompletedProcess[str]:
        """Start it with an environment as small as cron's."""
        return subprocess.run(
            ("/bin/sh", "-c", self.line()),
            env={"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.root.glob("records/*.json"))]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path, tmp_path / "root")
    for folder in ("bin", "units", "root"):
        (tmp_path / folder).mkdir()
    found.program("crontab", CRONTAB)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(install, "RUNNING", str(tmp_path / "running"))
    monkeypatch.setattr(systemd, "UNITS", str(tmp_path / "units"))
    return found


@pytest.fixture
def with_systemd(machine: Machine) -> Machine:
    (machine.folder / "running").mkdir()
    machine.program("systemctl", SYSTEMCTL)
    machine.program("id", "#!/bin/sh\necho 0\n")
    return machine


@pytest.fixture
def api() -> Iterator[BotApi]:
    with bot_api.served(BotApi()) as found:
        yield found


@pytest.fixture
def project(filled: Database) -> str:
    return filled.container


@pytest.fixture
def session(machine: Machine, project: str, api: BotApi) -> Iterator[Session]:
    """A project whose database runs here, and whose application knows the bot."""
    data = {
        "deploy": {
            "project": project,
            "title": "Shop",
            "root": str(machine.root),
            "minimum_free_mb": 1,
        },
        "proxy": {"container": "no-such-door", "network": "no-such-network"},
        "database": {"service": "localhost", "backup_prefix": "shop", "schedule": "03:30"},
    }
    (machine.folder / "invoke.yaml").write_text(yaml.safe_dump(data))
    told = {"TELEGRAM_API_TOKEN": TOKEN, "MASTER_CHAT_ID": MASTER, "TELEGRAM_API_BASE": api.url}
    env = machine.root / ".env"
    env.write_bytes(write_env({**told, "POSTGRES_PASSWORD": SECRET}))
    env.chmod(0o600)
    with opened(machine.folder, "local", "inv", {"TELEGRAM_API_TOKEN": TOKEN, **told}) as found:
        yield found


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", *words),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_cron_starts_a_backup_as_anybody_would_take_it(
    session: Session, machine: Machine, api: BotApi
) -> None:
    said = install.install(session, "")
    assert said == "a backup each day at 03:30 UTC, by cron"
    done = machine.start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (taken,) = backup.listing(session.target, session.layout.backups)
    assert taken.state == "good"
    assert taken.rows > 0
    (record,) = machine.records()
    told = json.loads((machine.root / "public/backup.json").read_text())
    assert told["name"] == record["backup"]["name"]
    assert (record["kind"], record["trigger"], record["code"]) == ("backup", "timer", 0)
    assert record["backup"]["name"] == taken.name
    log = Path(record["log"]).read_text()
    assert "outcome: success (exit code 0)" in log.splitlines()[-1]
    assert lock.look(session.target, session.layout.lock) is None
    assert api.texts() == []
    backups.back_up(session, "", download=False)  # and the next run finds nothing left over
    assert not machine.records()[-1]["warnings"]
    for path in (machine.table, *machine.root.rglob("*")):
        if path.is_file() and path.name != ".env":
            assert SECRET.encode() not in path.read_bytes()
            assert TOKEN.encode() not in path.read_bytes()
    assert (machine.root / "schedule/plan.json").stat().st_mode & 0o777 == 0o600


def test_one_that_fails_is_told_once(
    session: Session, machine: Machine, api: BotApi, project: str
) -> None:
    install.install(session, "")
    stopped = f"{project}-stopped-{uuid.uuid4().hex[:8]}"
    plan = machine.root / "schedule/plan.json"
    data = json.loads(plan.read_text())
    data["settings"]["deploy"]["project"] = stopped
    plan.write_text(json.dumps(data))
    labels = ("--label", f"com.docker.compose.project={stopped}")
    service = ("--label", "com.docker.compose.service=localhost")
    docker("create", "--name", stopped, *labels, *service, "postgres:15-bookworm")
    try:
        done = machine.start()
    finally:
        docker("rm", "--force", "--volumes", stopped)
    assert done.returncode == 9
    assert "No database container runs" in done.stderr
    (message,) = api.texts()
    assert message.startswith("⚠️ WARNING ⚠️\n")
    assert "No database container runs" in message
    (record,) = machine.records()
    assert (record["trigger"], record["code"], record["notification"]["sent"]) == ("timer", 9, True)
    assert lock.look(session.target, session.layout.lock) is None


def test_one_waits_for_a_run_that_holds_the_lock(session: Session, machine: Machine) -> None:
    install.install(session, "")
    held = lock.take(session.target, session.layout, session.run("deploy", session.target).owner)
    argv = (sys.executable, "-m", "deploy.schedule.work", f"{machine.root}/schedule/plan.json")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any("→ lock" in line for line in process.stdout)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        held.give_back()
        process.communicate(timeout=60)
    assert process.returncode == 0
    (record,) = machine.records()
    assert (record["trigger"], record["code"]) == ("timer", 0)


def test_an_environment_that_is_garbled_is_said(
    session: Session, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    install.install(session, "")
    (machine.root / ".env").write_text("no assignment")
    assert work.main([f"{machine.root}/schedule/plan.json"]) == 7
    assert ".env:1" in capsys.readouterr().err


def test_twice_is_once_and_off_is_none(session: Session, machine: Machine) -> None:
    machine.table.write_bytes(OTHERS)
    install.install(session, "")
    table = machine.table.read_bytes()
    assert table.startswith(OTHERS + b"\n30 3 ") or b" * * * cd " in table
    said = install.install(session, "")
    assert said == "nothing to do: a backup each day at 03:30 UTC, by cron"
    assert machine.table.read_bytes() == table
    assert install.install(session, "04:45") == "a backup each day at 04:45 UTC, by cron"
    assert machine.table.read_bytes().count(b"\n") == table.count(b"\n")
    assert install.remove(session) == "no more backups by itself"
    assert machine.table.read_bytes() == OTHERS + b"\n"
    assert not (machine.root / "schedule").exists()
    assert install.remove(session) == "nothing to do: there was no schedule"


def test_another_library_takes_the_place_of_the_one_before(
    session: Session, machine: Machine
) -> None:
    install.install(session, "")
    folder = machine.root / "schedule"
    (library,) = (path for path in folder.iterdir() if path.is_dir())
    library.rename(folder / "an-older-one")
    (folder / ".part.cut").mkdir()
    assert not install.install(session, "").startswith("nothing")
    assert {path.name for path in folder.iterdir()} == {library.name, "plan.json"}


def test_a_crontab_that_cannot_be_read_is_not_replaced(session: Session, machine: Machine) -> None:
    machine.program("crontab", f"#!/bin/sh\ntouch {machine.table}.{'$1'}\necho no >&2; exit 1\n")
    with pytest.raises(Exception, match="failed with exit code 1"):
        install.install(session, "")
    assert not machine.table.with_name("table.-").exists()


def test_systemd_comes_before_cron(session: Session, with_systemd: Machine) -> None:
    name, units = install.name_of(session.settings), with_systemd.folder / "units"
    with_systemd.table.write_bytes(OTHERS + f"\n1 2 * * * before # {name}\n".encode())
    told = with_systemd.folder / "told"
    said = install.install(session, "")
    assert said == f"a backup each day at 03:30 UTC, by systemd timer {name}.timer"
    assert with_systemd.table.read_bytes() == OTHERS + b"\n"
    assert {path.name for path in units.iterdir()} == {f"{name}.service", f"{name}.timer"}
    assert f"enable --quiet {name}.timer" in told.read_text()
    told.unlink()
    assert install.install(session, "").startswith("nothing to do: ")
    assert "daemon-reload" not in told.read_text()
    (with_systemd.folder / "on").unlink()  # somebody has turned it off
    assert not install.install(session, "").startswith("nothing")
    assert "03:30:00 UTC" in (units / f"{name}.timer").read_text()
    install.install(session, "05:00")
    assert "05:00:00 UTC" in (units / f"{name}.timer").read_text()
    assert install.remove(session) == "no more backups by itself"
    assert not list(units.iterdir())
    assert not (with_systemd.folder / "on").exists()


def test_what_root_has_told_systemd_nobody_else_tells_cron(
    session: Session, with_systemd: Machine
) -> None:
    install.install(session, "")
    with_systemd.program("id", "#!/bin/sh\necho 1000\n")
    with pytest.raises(Invalid, match="was made by root"):
        install.install(session, "")
    with pytest.raises(Invalid, match="was made by root"):
        install.remove(session)
    assert not with_systemd.table.exists()


def test_a_host_that_starts_nothing_by_itself_is_refused(
    session: Session, machine: Machine
) -> None:
    (machine.folder / "bin/crontab").unlink()
    if shutil.which("crontab"):
        pytest.skip("this machine has a crontab of its own")
    with pytest.raises(Invalid, match="Nothing on the host") as caught:
        install.install(session, "")
    assert "apt-get install cron" in caught.value.next_step
    assert not (machine.root / "schedule").exists()
    assert not hosts.read(session.target, f"{machine.root}/schedule/plan.json")


def test_both_command_lines_schedule(session: Session, machine: Machine) -> None:
    shutil.copy(ROOT / "tasks.py", machine.folder)
    shutil.copytree(ROOT / "fabfile", machine.folder / "fabfile")
    says = {
        ("invoke", "backup.schedule", "--at", "04:00"): "a backup each day at 04:00 UTC, by cron",
        ("fabric", "-H", "local", "backup.schedule", "--at", "04:00"): "nothing to do: a backup",
        ("fabric", "-H", "local", "backup.schedule", "--off"): "no more backups by itself",
        ("invoke", "backup.schedule", "--off"): "nothing to do: there was no schedule",
    }
    for words, said in says.items():
        done = typed(machine.folder, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(said)
    for tool in (("invoke",), ("fabric", "-H", "local")):
        done = typed(machine.folder, *tool, "backup", "--keep", "3", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"] > 0
