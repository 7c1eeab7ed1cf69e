"""`secrets.check` on a real repository and real files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import exposure
from deploy.outcome import Exposed, Invalid
from deploy.session import opened

GIT = ("git", "-c", "user.name=Ann", "-c", "user.email=ann@localhost")
VALUE = "Kept-On-The-Host-81"
HERE = "Only-Here-77-abc"
KEY = "sk-abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without a fault: its secrets stand in files of its own."""
    folder, root = tmp_path / "project", tmp_path / "root"
    (root / "releases/r1/source").mkdir(parents=True)
    (root / "releases/r1/source/code.py").touch(0o644)
    folder.mkdir()
    settings = {
        "deploy": {"project": "shop", "title": "Shop", "root": str(root)},
        "proxy": {"container": "c", "network": "n"},
        "secrets": {"examples": ["tests/"]},
    }
    (folder / "invoke.yaml").write_text(yaml.safe_dump(settings))
    (folder / ".gitignore").write_text(".env\n")
    write(folder / ".env", f"API_KEY={HERE}\n")
    write(root / ".env", f"POSTGRES_PASSWORD={VALUE}\n")
    write(root / "releases/r1/env", f"POSTGRES_PASSWORD={VALUE}\n")
    git(folder, "init", "--quiet", "-b", "main")
    commit(folder, "README", "nothing\n")
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def git(folder: Path, *words: str) -> None:
    subprocess.run((*GIT, "-C", str(folder), *words), check=True, capture_output=True, timeout=30)


def commit(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", name)


def check(folder: Path) -> dict[str, Any]:
    with opened(folder, "local", "inv", {}) as session:
        return exposure.check(session)


def refused(folder: Path) -> str:
    with pytest.raises(Exposed) as caught:
        check(folder)
    document = json.dumps(caught.value.as_json())
    assert VALUE not in document
    assert HERE not in document
    assert KEY not in document
    assert caught.value.code == 7
    assert all(item["cure"] for item in caught.value.findings)
    return "\n".join(f"{item['where']}: {item['what']}" for item in caught.value.findings)


def test_a_project_without_a_fault_has_none(project: Path) -> None:
    found = check(project)
    assert (found["findings"], found["values"]) == ([], 2)
    assert "no secret is committed" in exposure.as_text(found)


def test_what_was_committed_is_found_also_when_it_was_taken_out(project: Path) -> None:
    commit(project, "a.py", f"password = '{VALUE}'\n")
    commit(project, "a.py", "password = ''\n")
    told = refused(project)
    assert told.startswith("a.py (")
    assert "the value of POSTGRES_PASSWORD in .env of local stands there" in told


def test_what_is_about_to_be_committed_is_found(project: Path) -> None:
    commit(project, "tests/a.py", f"made_up = '{KEY}'\n")
    (project / "tests/a.py").write_text(f"real = '{HERE}'\n")
    told = refused(project)
    assert told == "tests/a.py (the working tree): the value of API_KEY in .env here stands there"


def test_what_was_never_in_use_is_found_by_its_form(project: Path) -> None:
    git(project, "checkout", "--quiet", "-b", "other")
    commit(project, "b.py", f"key = '{KEY}'\n")
    git(project, "checkout", "--quiet", "main")
    assert "an API key stands there" in refused(project)


def test_what_only_a_merge_has_is_found(project: Path) -> None:
    git(project, "checkout", "--quiet", "-b", "other")
    commit(project, "b.py", "b\n")
    git(project, "checkout", "--quiet", "main")
    commit(project, "a.py", "a\n")
    git(project, "merge", "--quiet", "--no-commit", "other")
    commit(project, "b.py", f"password = '{VALUE}'\n")
    commit(project, "b.py", "b\n")
    assert "the value of POSTGRES_PASSWORD" in refused(project)


def test_what_a_message_says_is_found(project: Path) -> None:
    git(project, "commit", "--allow-empty", "--message", f"Log in\n\nThe password is {VALUE}.")
    told = refused(project)
    assert told.startswith("the message (")
    assert "the value of POSTGRES_PASSWORD in .env of local stands there" in told


def test_what_git_is_told_not_to_show_is_found(project: Path) -> None:
    commit(project, ".gitattributes", "*.lock -diff\n")
    commit(project, "a.lock", f"password = '{VALUE}'\n")
    assert refused(project).startswith("a.lock (")


def test_what_the_next_add_would_take_is_found(project: Path) -> None:
    (project / "notes").mkdir()
    (project / "notes/new.txt").write_text(f"password = '{VALUE}'\n")
    (project / "leads.txt").symlink_to(project / ".env")
    told = refused(project)
    assert told.startswith("notes/new.txt (not in git yet): the value of POSTGRES_PASSWORD")
    assert "leads.txt" not in told
    (project / ".gitignore").write_text(".env\nnotes/\n")
    assert check(project)["findings"] == []


def test_before_the_first_commit_what_is_staged_is_searched(project: Path) -> None:
    shutil.rmtree(project / ".git")
    git(project, "init", "--quiet", "-b", "main")
    (project / "a.py").write_text(f"password = '{VALUE}'\n")
    git(project, "add", "--all")
    assert refused(project).startswith("a.py (the working tree)")


def test_where_git_keeps_nothing_that_is_said(project: Path) -> None:
    shutil.rmtree(project / ".git")
    assert "this is no git repository" in exposure.as_text(check(project))


def unknown(project: Path) -> Invalid:
    with pytest.raises(Invalid, match="Whether a secret is committed is unknown") as caught:
        check(project)
    assert not isinstance(caught.value, Exposed)
    assert (caught.value.code, caught.value.where) == (7, str(project))
    return caught.value


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_repository_that_git_refuses_is_not_called_clean(project: Path) -> None:
    for path in (project, project / ".git"):
        os.chown(path, 4711, 4711)
    error = unknown(project)
    assert "dubious ownership" in error.why
    assert f"git config --global --add safe.directory {project}" in error.next_step


def test_a_history_that_cannot_be_read_to_its_end_is_not_called_clean(project: Path) -> None:
    commit(project, "a.py", "a\n")
    git(project, "gc", "--quiet")
    (pack,) = (project / ".git/objects/pack").glob("*.pack")
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:40])
    error = unknown(project)
    assert "fatal" in error.why or "error" in error.why
    assert f"git -C {project} fsck --full" in error.next_step


def test_a_history_that_takes_too_long_is_not_called_clean(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    real = shutil.which("git")
    slow.write_text(f'#!/bin/sh\ncase "$*" in *" log "*) exec sleep 60 ;; esac\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(exposure, "DEADLINE", 1.0)
    error = unknown(project)
    assert "did not end within" in error.why
    assert f"git -C {project} gc" in error.next_step


def test_all_that_is_wrong_is_named_at_once(project: Path, tmp_path: Path) -> None:
    (project / ".env").chmod(0o644)
    (tmp_path / "root/releases/r1/env").chmod(0o640)
    git(project, "add", "--force", ".env")
    git(project, "commit", "--quiet", "--message", "env")
    told = refused(project)
    assert f"local:{project}/.env: mode 644, of user " in told
    assert f"local:{tmp_path}/root/releases/r1/env: mode 640, of user " in told
    assert "git keeps a file that holds secrets by its name" in told
    assert "the value of API_KEY in .env here stands there" in told


def test_what_proves_webhooks_and_fetches_the_code_is_looked_at(
    project: Path, tmp_path: Path
) -> None:
    secret, key = tmp_path / "root/triggers/queue/secret", tmp_path / "root/ssh/deploy_key"
    for path in (secret, key):
        path.parent.mkdir(parents=True)
        write(path, "Proves-Webhooks-4711")
    assert check(project)["values"] == 3
    key.chmod(0o640)
    secret.chmod(0o644)
    commit(project, "a.py", "proof = 'Proves-Webhooks-4711'\n")
    told = refused(project)
    assert f"local:{secret}: mode 644" in told
    assert f"local:{key}: mode 640" in told
    assert "the value of LISTEN_SECRET in the listener's queue stands there" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_secret_is_its_folders_owner_s(project: Path, tmp_path: Path) -> None:
    secret = tmp_path / "root/triggers/queue/secret"
    secret.parent.mkdir(parents=True)
    write(secret, "Proves-Webhooks-4711")
    os.chown(secret, 4711, 4711)
    assert "mode 600, of user " in refused(project)
    os.chown(secret.parent, 4711, 4711)
    assert check(project)["findings"] == []


def test_the_verb_ends_with_seven_and_one_document(project: Path) -> None:
    (project / ".env").chmod(0o644)
    root = Path(__file__).resolve().parents[3]
    shutil.copy(root / "tasks.py", project)
    done = subprocess.run(
        (sys.executable, "-m", "invoke", "secrets.check", "--json"),
        cwd=project,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    found = json.loads(done.stdout)
    assert found["findings"][0]["cure"].startswith("chmod 600 ")
