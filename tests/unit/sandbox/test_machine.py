"""Stamps, pid files and certificates: small decisions read from small files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import certificates
from sandbox.machine import engine, environment


def project(folder: Path) -> Path:
    (folder / "requirements").mkdir()
    (folder / "requirements" / "dev.txt").write_text("a==1\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "inv").write_text("")
    return folder


def test_an_environment_is_current_until_its_lock_changes(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert not environment.is_current(root, (3, 11))
    (root / ".venv" / environment.STAMP).write_text(environment.fingerprint(root, (3, 11)))
    assert environment.is_current(root, (3, 11))
    assert not environment.is_current(root, (3, 12))
    (root / "requirements" / "dev.txt").write_text("a==2\n")
    assert not environment.is_current(root, (3, 11))


def test_an_environment_without_its_program_is_not_current(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / ".venv" / environment.STAMP).write_text(environment.fingerprint(root, (3, 11)))
    (root / ".venv" / "bin" / "inv").unlink()
    assert not environment.is_current(root, (3, 11))


@pytest.mark.parametrize(
    ("content", "stale"),
    [("14", False), ("14\n", False), ("15", True), ("99", True), ("", True), ("../14", True)],
)
def test_a_pid_file_is_stale_when_its_number_is_something_else(
    tmp_path: Path, content: str, *, stale: bool
) -> None:
    for number, name in (("14", "dockerd"), ("15", "sshd")):
        (tmp_path / "proc" / number).mkdir(parents=True)
        (tmp_path / "proc" / number / "comm").write_text(f"{name}\n")
    file = tmp_path / "docker.pid"
    file.write_text(content)
    assert engine.is_stale(file, "dockerd", tmp_path / "proc") is stale


def test_a_pid_file_that_is_not_there_is_not_stale(tmp_path: Path) -> None:
    assert not engine.is_stale(tmp_path / "docker.pid", "dockerd")


def certificate(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def test_only_the_machines_own_certificates_are_extra() -> None:
    bundle = certificate("AA") + "# a remark\n" + certificate("BB") + certificate("BB")
    assert certificates.beyond(bundle, [certificate("AA").replace("\n", "\r\n")]) == [
        certificate("BB")
    ]
    assert certificates.beyond("", [certificate("AA")]) == []


def test_a_machine_without_a_bundle_has_no_extra(tmp_path: Path) -> None:
    certificates.write_extra(tmp_path / "ca", tmp_path / "none", tmp_path / "none")
    assert [file.name for file in (tmp_path / "ca").iterdir()] == ["README"]
