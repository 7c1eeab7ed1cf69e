"""The CI files: what their schemas say, what they pin, and their commands at a real sshd."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import ci_files, sshd
from tests.support.ci_files import FILES, GITHUB, GITLAB, JENKINS, ROOT, Vps

SCHEMAS = {
    GITHUB: ("--builtin-schema", "vendor.github-workflows"),
    GITLAB: ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_they_are_what_their_schemas_say(name: str, tmp_path: Path) -> None:
    check = (sys.executable, "-m", "check_jsonschema", *SCHEMAS[name])
    done = subprocess.run(
        (*check, str(ROOT / name)), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "bad.yml").write_text((ROOT / name).read_text() + "\ndeploy: 3\njobs: 3\n")
    bad = subprocess.run(
        (*check, str(tmp_path / "bad.yml")), capture_output=True, timeout=120, check=False
    )
    assert bad.returncode == 1


def test_actions_are_pinned_by_their_commit_and_one_deployment_runs_at_a_time() -> None:
    workflow = ci_files.load(GITHUB)
    used = [step["uses"] for step in workflow["jobs"]["deploy"]["steps"] if "uses" in step]
    assert used
    for name in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)
    assert workflow["concurrency"] == {"group": "deploy-production", "cancel-in-progress": "false"}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["on"] == {"push": {"branches": ["main"]}, "workflow_dispatch": ""}
    job = ci_files.load(GITLAB)["deploy"]
    assert (job["resource_group"], job["interruptible"]) == ("production", "false")
    text = (ROOT / JENKINS).read_text()
    assert "disableConcurrentBuilds()" in text
    for name in FILES:
        whole = (ROOT / name).read_text()
        assert "fab -H vps deploy" in whole
        assert "StrictHostKeyChecking" not in whole
        assert "ssh-keyscan >" not in whole


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def vps(server: sshd.Sshd) -> Vps:
    folder = server.folder
    return Vps("127.0.0.1", server.port, "root", folder / "key", folder / "known_hosts")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_commands_reach_the_host_and_no_other(name: str, vps: Vps, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(("git", "clone", "--quiet", str(ROOT), str(checkout)), check=True, timeout=60)
    ci_files.copy(checkout)
    code, said = ci_files.run(name, checkout, vps, "HEAD")
    assert code == 7, said
    assert "no Docker engine answers on vps" in said
    other = vps.known_hosts.parent / "other"
    sshd.make_key(tmp_path / "another")
    kind, key = (tmp_path / "another.pub").read_text().split()[:2]
    other.write_text(f"[127.0.0.1]:{vps.port} {kind} {key}\n")
    code, said = ci_files.run(name, checkout, replace(vps, known_hosts=other), "HEAD")
    assert code == 8, said
    assert vps.key.read_text().splitlines()[1] not in said
