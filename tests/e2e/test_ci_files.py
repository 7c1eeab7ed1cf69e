"""The commands of the CI files, typed as they stand there, deploy to the box."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox import contents
from sandbox.vps import keys
from tests.e2e.conftest import ROOT, Developer, change_settings
from tests.support import ci_files
from tests.support.ci_files import Vps

ORIGIN = "/srv/git/shop.git"


@pytest.fixture(scope="module")
def ann(shop: Developer) -> Developer:
    """A developer whose project has the CI files, and an origin that the host can read."""
    ci_files.copy(shop.clone)
    settings = shop.clone / "invoke.yaml"
    change_settings(settings, {"git": {"url": f"file://{ORIGIN}"}})
    shop.commit("invoke.yaml", settings.read_text())
    subprocess.run(contents.script(shop.box, contents.PREPARE, ORIGIN), check=True, timeout=60)
    return shop


@pytest.mark.parametrize("name", ci_files.FILES)
def test_a_push_is_deployed(ann: Developer, name: str, tmp_path: Path) -> None:
    sha = ann.commit("web.py", f"# by {name}\n", append=True)
    subprocess.run(
        ("git", "-C", str(ann.clone), "push", "--quiet", f"ssh://vps{ORIGIN}", "HEAD:main"),
        env=contents.push_environment(ann.box, {}),
        check=True,
        timeout=60,
    )
    checkout = tmp_path / "checkout"
    subprocess.run(("git", "clone", "-q", str(ann.clone), str(checkout)), check=True, timeout=60)
    (checkout / "deploy").symlink_to(ROOT / "deploy")
    box = ann.box
    files = (box.directory / keys.KEY, box.directory / keys.KNOWN_HOSTS)
    vps = Vps(box.address, box.port, "root", *files)
    code, said = ci_files.run(name, checkout, vps, sha)
    assert code == 0, said
    record = ann.document("history", "--limit", "1")[0]
    assert (record["sha"], record["trigger"], record["code"]) == (sha, "fab in CI", 0)
    assert ann.document("status")["release"]["sha"] == sha
