"""Bad input: one clear line, the right code, and nothing has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sandbox import contents
from sandbox.box import Box
from tests.e2e.conftest import Developer, Ended


@pytest.fixture(scope="module")
def ann(box: Box, shop: Developer) -> Developer:
    contents.reset(box)
    shop.on_host("rm -rf /opt/shop")
    ended = shop.inv("deploy")
    assert ended.code == 0, ended.said
    return shop


def traces(ann: Developer) -> str:
    """Everything on the host that a deployment would change."""
    return ann.on_host(
        "find /opt/shop -printf '%p %s %T@\\n' | sort;"
        " docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.Image}} {{.State}}';"
        " docker images --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}'"
    )


def refused(ended: Ended, code: int, *says: str) -> None:
    assert ended.code == code, ended.said
    for text in says:
        assert text in ended.err
    assert "Traceback" not in ended.said
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.err


@pytest.mark.parametrize(
    "ref",
    ["--upload-pack=x", "main; touch /tmp/x", "$(touch /tmp/x)", "nowhere", "a..b", "HEAD:web.py"],
)
@pytest.mark.parametrize("tool", ["inv", "fab"])
def test_a_ref_that_is_none(ann: Developer, ref: str, tool: str) -> None:
    before = ann.live()
    ended = (ann.inv if tool == "inv" else ann.fab)("deploy", f"--ref={ref}")
    refused(ended, 7)
    assert ann.live() == before
    assert not Path("/tmp/x").exists()
    assert "No such file" in ann.on_host("ls /tmp/x 2>&1", check=False)


def test_a_host_that_is_not_there(ann: Developer) -> None:
    refused(ann.inv("deploy", "--host", "no-such-host.invalid"), 8, "cannot be reached", "next: ")
    refused(ann.inv("status", "--host", "127.0.0.1:1"), 8, "cannot be reached")


@pytest.mark.parametrize("name", ["-oProxyCommand=touch /tmp/x", "a b", ""])
def test_a_name_that_is_no_host(ann: Developer, name: str) -> None:
    ended = ann.inv("status", f"--host={name}")
    if name:
        refused(ended, 7, "no host name")
    else:
        assert ended.code == 0


def test_a_host_whose_key_is_unknown_or_changed(ann: Developer, tmp_path: Path) -> None:
    folder = tmp_path / ".sandbox"
    shutil.copytree(ann.box.directory, folder, ignore=shutil.ignore_patterns("sweep", "demo"))
    config = (folder / "ssh_config").read_text()
    known = (folder / "known_hosts").read_text()
    shutil.copytree(ann.clone, tmp_path / "clone", ignore=shutil.ignore_patterns(".sandbox"))
    other = Developer(ann.box, tmp_path / "clone")
    (other.clone / ".sandbox").symlink_to(folder)
    (folder / "ssh_config").write_text(config.replace(str(ann.box.directory), str(folder)))
    before = traces(ann)
    (folder / "known_hosts").write_text("")
    refused(other.inv("deploy"), 8, "key is unknown")
    (folder / "known_hosts").write_text(known[:-20] + "A" * 18 + "=\n")
    ended = other.inv("deploy")
    refused(ended, 8)
    assert traces(ann) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "There is no invoke.yaml"),
        ("deploy: [", "invoke.yaml cannot be read"),
        ("\x00\x01", "invoke.yaml cannot be read"),
        ("- a list", ""),
        ("{}", "deploy is missing"),
        ("deploy: {hots: vps}\n", "did you mean host?"),
    ],
)
@pytest.mark.parametrize("tool", ["inv", "fab"])
def test_an_invoke_yaml_that_is_none(
    ann: Developer, text: str | None, says: str, tool: str
) -> None:
    path = ann.clone / "invoke.yaml"
    good = path.read_text()
    try:
        path.unlink()
        if text is not None:
            path.write_text(text)
        refused((ann.inv if tool == "inv" else ann.fab)("status"), 7, says)
    finally:
        path.write_text(good)


def test_no_docker_here(ann: Developer) -> None:
    before = traces(ann)
    ended = ann.inv("deploy", DOCKER_HOST="unix:///nowhere/docker.sock")
    refused(ended, 7, "no Docker engine answers on local")
    assert traces(ann) == before


def test_no_docker_there(ann: Developer) -> None:
    ann.on_host("mv /usr/bin/docker /usr/bin/docker.away")
    try:
        refused(ann.inv("deploy"), 7, "vps has no docker")
    finally:
        ann.on_host("mv /usr/bin/docker.away /usr/bin/docker")


def test_a_full_disk_there(ann: Developer) -> None:
    ann.on_host("mount -t tmpfs -o size=64m tmpfs /opt/shop && cp -a /opt/shop /opt/shop.was")
    try:
        ended = ann.inv("deploy")
        refused(ended, 7, "MB free on /opt/shop", "deploy.minimum_free_mb")
        assert ann.on_host("ls -A /opt/shop") == ""
    finally:
        ann.on_host("umount /opt/shop && rm -rf /opt/shop.was")


@pytest.mark.parametrize(
    "words", [("restore",), ("deploy", "--nonsense"), ("deploi",), ("history", "--limit", "x")]
)
@pytest.mark.parametrize("tool", ["inv", "fab"])
def test_what_is_typed_wrong(ann: Developer, words: tuple[str, ...], tool: str) -> None:
    refused((ann.inv if tool == "inv" else ann.fab)(*words), 7, "next: inv --list")


def test_an_error_is_a_document_for_machines(ann: Developer) -> None:
    for words in (("report", "--run=nothing"), ("status", "--host", "no-such-host.invalid")):
        ended = ann.inv(*words, "--json")
        found = json.loads(ended.out)
        assert set(found) == {"error", "code", "where", "next"}
        assert found["code"] == ended.code in (7, 8)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DATABASE_URL", "mysql://u:planted-pw@h/d", "DATABASE_URL must look like"),
        ("COVERAGE_THRESHOLD", "lots", "COVERAGE_THRESHOLD must be a number"),
        ("STARTUP_WAIT", "-1", "health.startup_wait"),
        ("TELEGRAM_API_TOKEN", "planted-token", "TELEGRAM_API_TOKEN"),
    ],
)
def test_a_variable_that_makes_no_sense(
    ann: Developer, variable: str, value: str, says: str
) -> None:
    ended = ann.inv("deploy", **{variable: value})
    refused(ended, 7, says)
    assert "planted" not in ended.said
