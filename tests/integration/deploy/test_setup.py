"""A set-up of this machine, from a repository behind a real sshd: killed, and done again."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import host as hosts
from deploy import lock
from deploy.command import script
from deploy.doctor import host as checks
from deploy.doctor.visit import Visit
from deploy.dotenv import parse_env
from deploy.host import Host, local_host
from deploy.host.process import CommandFailed
from deploy.log import RunLog
from deploy.outcome import Busy, Invalid
from deploy.redact import Redactor
from deploy.run import Caller
from deploy.schedule import install as scheduling
from deploy.session import Session
from deploy.settings import Deploy, Proxy, Settings, Webhook
from deploy.settings.schema import Database
from deploy.setup import trust
from deploy.setup.parts import PARTS
from deploy.setup.site import Wish
from deploy.setup.verb import Outcome, State, as_text, plan, put_right, setup, site_of, walk
from deploy.steps import services
from deploy.triggers import service
from tests.support.sshd import Sshd, make_key, running

pytestmark = pytest.mark.slow
REPOSITORY = "/srv/shop.git"
MAKE_REPOSITORY = f"""
set -e
git init --quiet --bare -b main {REPOSITORY}
git init --quiet -b main /srv/work
cd /srv/work
git -c user.name=Ann -c user.email=a@b commit --quiet --allow-empty -m one
git push --quiet {REPOSITORY} main
"""
EXAMPLE = "NAME=shop\nPASSWORD=generate\nURL=db://${PASSWORD}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as found:
        found.inside("sh", "-c", MAKE_REPOSITORY)
        yield found


@pytest.fixture
def closed(server: Sshd) -> Iterator[Sshd]:
    """The server, which lets nobody in but us; afterwards as well."""
    keys = "/root/.ssh/authorized_keys"
    server.inside("cp", keys, f"{keys}.before")
    yield server
    server.inside("mv", f"{keys}.before", keys)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = Settings(
        deploy=Deploy(project="shop", title="Shop", root=str(tmp_path / "root")),
        proxy=Proxy(container="shop_proxy", network="net"),
    )
    log = RunLog(Redactor(), io.StringIO())
    here = local_host(log)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".env.example").write_text(EXAMPLE)
    (folder / "invoke.yaml").touch()
    return Session(folder, settings, here, here, log, Caller("ann", "laptop", "inv"))


@pytest.fixture
def root(session: Session) -> Path:
    return Path(session.layout.root)


@pytest.fixture
def wish(server: Sshd) -> Wish:
    url = f"ssh://root@127.0.0.1:{server.port}{REPOSITORY}"
    return Wish(url, "vps@example.org", "The VPS; $(touch x)")


def let_in(server: Sshd, session: Session) -> None:
    key = hosts.read(session.target, f"{session.layout.deploy_key}.pub").strip()
    server.inside("sh", "-c", 'echo "$1" >>/root/.ssh/authorized_keys', "sh", key)


def states(found: tuple[Outcome, ...]) -> dict[str, State]:
    return {item.name: item.state for item in found}


def outcome(found: tuple[Outcome, ...], name: str) -> Outcome:
    return next(item for item in found if item.name == name)


def traces(root: Path) -> dict[str, tuple[int, int, int]]:
    known = {str(path): path.stat() for path in (root, *root.rglob("*"))}
    return {name: (item.st_mode, item.st_mtime_ns, item.st_ino) for name, item in known.items()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_from_nothing_to_a_clone_and_then_nothing_more(
    session: Session, root: Path, wish: Wish, closed: Sshd
) -> None:
    foreseen = plan(session, wish)
    assert not root.exists()
    assert State.FAILED not in states(foreseen).values(), as_text(foreseen)

    waits = setup(session, wish)
    clone = outcome(waits, "clone")
    assert clone.state is State.FAILED
    assert "Permission denied" in clone.what
    assert "enter the key below" in clone.cure
    assert states(waits)["identity"] is State.WAITS
    public = (root / "ssh/deploy_key.pub").read_text().strip()
    assert public in as_text(waits)
    pinned = (root / "ssh/known_hosts").read_text().split()
    assert pinned[0] == f"[127.0.0.1]:{closed.port}"
    assert trust.fingerprint(pinned[2]) in as_text(waits)

    let_in(closed, session)
    ready = setup(session, wish)
    assert set(states(ready).values()) == {State.RIGHT, State.DONE}, as_text(ready)
    assert states(ready)["key"] is State.RIGHT
    git = ("git", "-C", str(root / "repo"))
    told = subprocess.run((*git, "config", "user.name"), capture_output=True, check=True)
    assert told.stdout.decode().strip() == wish.name

    before = traces(root)
    assert set(states(setup(session, wish)).values()) == {State.RIGHT}
    assert set(states(plan(session, wish)).values()) == {State.RIGHT}
    assert set(states(setup(session, Wish())).values()) == {State.RIGHT}  # the clone knows
    assert traces(root) == before


@pytest.mark.parametrize("count", range(len(PARTS)))
def test_one_that_ended_after_any_part_is_gone_on_with(
    session: Session, root: Path, wish: Wish, closed: Sshd, count: int
) -> None:
    first = walk(PARTS[:count], site_of(session, wish), put_right)
    key = root / "ssh/deploy_key"
    made = key.read_bytes() if key.exists() else b""
    if made:
        let_in(closed, session)
    rest = setup(session, wish)
    assert all(states(rest)[item.name] is State.RIGHT for item in first if item.name != "clone")
    assert not made or key.read_bytes() == made


def test_what_is_there_is_not_overwritten(session: Session, root: Path, wish: Wish) -> None:
    root.mkdir()
    env = root / ".env"
    env.write_text("# mine\nPASSWORD=old\n")
    env.chmod(0o644)
    setup(session, wish)
    assert env.read_text() == "# mine\nPASSWORD=old\n"
    assert mode(env) == 0o600


def test_an_environment_is_made_of_the_example(session: Session, root: Path, wish: Wish) -> None:
    setup(session, wish)
    found = parse_env((root / ".env").read_text())
    assert found["NAME"] == "shop"
    assert len(found["PASSWORD"]) > 20
    assert found["URL"] == f"db://{found['PASSWORD']}"
    assert mode(root / ".env") == 0o600


def test_an_environment_that_another_makes_meanwhile_stays(
    session: Session, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "bin/ln"
    link.parent.mkdir()
    real = shutil.which("ln")
    theirs = f"if [ ! -e {root}/.env ]; then umask 077; echo NAME=theirs >{root}/.env; fi"
    link.write_text(f'#!/bin/sh\n{theirs}\nexec {real} "$@"\n')
    link.chmod(0o755)
    monkeypatch.setenv("PATH", f"{link.parent}:{os.environ['PATH']}")
    found = setup(session, Wish())
    assert outcome(found, "environment").state is State.DONE, as_text(found)
    assert (root / ".env").read_text() == "NAME=theirs\n"
    assert mode(root / ".env") == 0o600


@pytest.mark.parametrize("wish", [Wish(email="a@b\nc"), Wish(name="Ann\x1b[1m")])
def test_who_git_is_stands_in_one_line(session: Session, root: Path, wish: Wish) -> None:
    for verb in (plan, setup):
        with pytest.raises(Invalid, match="control character") as caught:
            verb(session, wish)
        assert caught.value.where.startswith("--git-")
    assert not root.exists()


def test_a_file_is_created_once(here: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    hosts.create(here, str(path), b"one")
    with pytest.raises(CommandFailed):
        hosts.create(here, str(path), b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_closed_to_others(session: Session, root: Path, wish: Wish) -> None:
    (root / "backups").mkdir(parents=True)
    for path, wide in ((root, 0o777), (root / "backups", 0o750)):
        path.chmod(wide)
    found = outcome(setup(session, wish), "folders")
    assert "close" in found.what
    assert (mode(root), mode(root / "backups"), mode(root / "public")) == (0o755, 0o700, 0o755)
    assert mode(root / "ssh") == 0o700


def test_what_containers_look_at_stays_open(session: Session, root: Path, wish: Wish) -> None:
    setup(session, wish)
    layout = session.layout
    shared = (layout.logs, layout.public, layout.proxy, layout.live)
    session.target.ask(script(services.SHARED, *shared))  # as a deployment does
    assert states(setup(session, wish))["folders"] is State.RIGHT


def test_a_key_that_others_may_read_is_closed(
    session: Session, root: Path, wish: Wish, closed: Sshd
) -> None:
    setup(session, wish)
    let_in(closed, session)
    assert outcome(setup(session, wish), "clone").state is State.DONE
    key = root / "ssh/deploy_key"
    before = key.read_bytes()
    key.chmod(0o644)
    key.parent.chmod(0o755)
    (told,) = checks.code_source(Visit(session, "inv"))
    assert "bad permissions" in told.what
    assert "Permission denied" in told.what
    assert outcome(plan(session, wish), "key").what == f"close {key} to others"
    assert outcome(setup(session, wish), "key").state is State.DONE
    assert (mode(key), mode(key.parent), key.read_bytes()) == (0o600, 0o700, before)
    (told,) = checks.code_source(Visit(session, "inv"))
    assert told.what.endswith(" answers")
    assert set(states(setup(session, wish)).values()) == {State.RIGHT}


def test_a_key_that_is_not_needed_now_is_closed_too(session: Session, root: Path) -> None:
    key = root / "ssh/deploy_key"
    key.parent.mkdir(parents=True)
    key.write_text("private\n")
    key.chmod(0o644)
    key.parent.chmod(0o755)
    wish = Wish("https://127.0.0.1:1/shop.git")
    assert outcome(plan(session, wish), "key").what == f"close {key} to others"
    setup(session, wish)
    assert (mode(key), mode(key.parent), key.read_text()) == (0o600, 0o700, "private\n")
    assert outcome(setup(session, wish), "key").state is State.RIGHT


@pytest.mark.parametrize("lost", ["deploy_key", "deploy_key.pub"])
def test_half_a_pair_of_keys_becomes_a_whole_one(
    session: Session, root: Path, wish: Wish, lost: str
) -> None:
    setup(session, wish)
    key = root / "ssh/deploy_key"
    before = key.read_bytes()
    (root / "ssh" / lost).unlink()
    assert states(setup(session, wish))["key"] is State.DONE
    assert (key.read_bytes() == before) is (lost != "deploy_key")
    told = subprocess.run(("ssh-keygen", "-y", "-f", str(key)), capture_output=True, check=True)
    assert told.stdout.split()[:2] == key.with_suffix(".pub").read_bytes().split()[:2]


def test_a_git_host_with_another_key_is_refused_and_the_rest_goes_on(
    session: Session, root: Path, wish: Wish, closed: Sshd, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    (root / "ssh").mkdir(parents=True)
    pins = root / "ssh/known_hosts"
    pins.write_text(f"[127.0.0.1]:{closed.port} {other[0]} {other[1]}\n")
    before = pins.read_text()
    found = setup(session, wish)
    refused = outcome(found, "trust")
    assert refused.state is State.FAILED
    assert "has changed" in refused.what
    assert trust.fingerprint(other[1]) in refused.what
    assert states(found)["clone"] is State.WAITS
    assert states(found)["environment"] is State.DONE
    assert pins.read_text() == before


def test_other_git_hosts_stay_known(session: Session, root: Path, wish: Wish) -> None:
    (root / "ssh").mkdir(parents=True)
    pins = root / "ssh/known_hosts"
    pins.write_text("github.com ssh-ed25519 AAAA")  # and no end of the line
    setup(session, wish)
    assert pins.read_text().splitlines()[0] == "github.com ssh-ed25519 AAAA"
    assert len(pins.read_text().splitlines()) > 1


def test_a_git_host_that_is_not_there_is_named(session: Session, wish: Wish) -> None:
    gone = Wish("ssh://git@127.0.0.1:9/shop.git")
    found = outcome(setup(session, gone), "trust")
    assert "shows no host key at port 9" in found.what


def test_another_repository_becomes_the_remote(
    session: Session, root: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        subprocess.run(("git", "init", "-q", "-b", "main", str(folder)), check=True, timeout=30)
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        commit = ("commit", "-q", "--allow-empty", "-m", name)
        subprocess.run(("git", "-C", str(folder), *author, *commit), check=True, timeout=30)
    first = setup(session, Wish(f"file://{tmp_path}/one"))
    assert set(states(first).values()) == {State.RIGHT, State.DONE}, as_text(first)
    assert not (root / "ssh").exists()  # a path needs no key
    second = outcome(setup(session, Wish(f"file://{tmp_path}/two")), "clone")
    assert second.what == f"fetch file://{tmp_path}/two instead of file://{tmp_path}/one"


def test_a_repository_without_the_branch_is_refused(session: Session, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    subprocess.run(("git", "init", "-q", "--bare", str(folder)), check=True, timeout=30)
    found = outcome(setup(session, Wish(f"file://{folder}")), "clone")
    assert found.state is State.FAILED
    assert "has no branch main" in found.what


def test_without_a_repository_the_rest_is_done(session: Session) -> None:
    found = setup(session, Wish())
    assert "--github-url" in outcome(found, "clone").cure
    assert states(found)["environment"] is State.DONE


def test_a_password_in_the_address_is_not_kept(session: Session, root: Path) -> None:
    setup(session, Wish("https://ann:planted-word@127.0.0.1:9/shop.git"))
    kept = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"planted-word" in path.read_bytes()]
    assert "planted-word" not in session.log.take().decode()


def test_beside_a_run_nothing_is_set_up(session: Session, wish: Wish) -> None:
    held = lock.take(session.target, session.layout, session.run("deploy", session.here).owner)
    try:
        with pytest.raises(Busy):
            setup(session, wish)
    finally:
        held.give_back()


def test_a_folder_that_is_not_ours_to_make_is_named(session: Session, wish: Wish) -> None:
    blocked = Path(session.layout.root)
    blocked.write_text("a file")
    found = setup(session, wish)
    assert outcome(found, "folders").state is State.FAILED


def test_what_the_host_lacks_is_not_installed_unasked(
    session: Session, wish: Wish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "timeout", "df", "awk", "mktemp", "dirname", "rm", "stat", "id", "env"):
        found = subprocess.run(("sh", "-c", f"command -v {name}"), capture_output=True, check=True)
        (folder / name).symlink_to(found.stdout.decode().strip())
    monkeypatch.setenv("PATH", str(folder))
    missing = outcome(walk(PARTS[:1], site_of(session, wish), put_right), "programs")
    assert missing.state is State.FAILED
    assert "docker" in missing.what
    assert "--install" in missing.cure
    asked = Wish(wish.url, install=True)
    refused = outcome(walk(PARTS[:1], site_of(session, asked), put_right), "programs")
    assert "only root installs" in refused.what
    assert "docker.io" in refused.cure


def test_without_systemd_webhooks_are_not_heard_and_the_rest_is_done(
    session: Session, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RUNNING", str(tmp_path / "none"))
    settings = session.settings.model_copy(update={"webhook": Webhook(path="/hooks/deploy")})
    found = setup(replace(session, settings=settings), Wish())
    refused = outcome(found, "listener")
    assert refused.state is State.FAILED
    assert "systemd does not run there" in refused.what
    assert f"inv listen --address {root}/proxy/listen/socket" in refused.cure
    assert states(found)["push"] is State.DONE
    assert f"A push deploys: git push {root}/push.git main" in as_text(found)
    assert states(plan(session, Wish()))["listener"] is State.RIGHT


@pytest.mark.skipif(bool(shutil.which("crontab")), reason="this machine has a cron of its own")
def test_where_nothing_can_start_a_backup_the_plan_says_so(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "RUNNING", str(tmp_path / "none"))
    database = Database(service="db", schedule="03:30")
    settings = session.settings.model_copy(update={"database": database})
    timed = replace(session, settings=settings)
    for found in (plan(timed, Wish()), setup(timed, Wish())):
        told = outcome(found, "timer")
        assert told.state is State.FAILED, told
        assert "it has no cron" in told.what
        assert told.cure.startswith("inv setup --host local --install, as root there")
    foreseen = plan(timed, Wish(install=True))
    assert "crontab" in outcome(foreseen, "programs").what
    assert outcome(foreseen, "timer").what == "take a backup each day at 03:30 UTC"
