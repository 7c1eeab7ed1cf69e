"""What pip-audit says is taken at its word, and its silence for no word at all."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import audit
from deploy.outcome import Invalid

GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {
    "name": "b",
    "version": "2",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["2.1", "3"]},
        {"id": "PYSEC-2", "fix_versions": []},
    ],
}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


def said(*items: dict[str, Any]) -> str:
    return json.dumps({"dependencies": items, "fixes": []})


def test_findings_are_named_with_their_cure() -> None:
    found = audit.parse(said(GOOD, BAD), "Found 2 known vulnerabilities")
    assert found.findings == (
        "b 2: PYSEC-1, fixed in 2.1, 3",
        "b 2: PYSEC-2, no fix yet",
    )
    assert "2 packages audited, 2 vulnerabilities known" in found.as_text()


@pytest.mark.parametrize(
    ("out", "err", "says"),
    [
        ("", "Traceback\nConnectionError: Failed to resolve 'pypi.org'\n", "Failed to resolve"),
        ("", "", "said nothing"),
        (said(SKIPPED), "No known vulnerabilities found", "it knows none of 1 packages"),
        (said(), "", "it knows none of 0 packages"),
        ("[]", "garbage", "garbage"),
    ],
)
def test_nothing_looked_up_is_no_good_answer(out: str, err: str, says: str) -> None:
    told = audit.parse(out, err).as_text()
    assert told.startswith("NOT AUDITED")
    assert says in told


def test_what_was_left_out_is_named() -> None:
    told = audit.parse(said(GOOD, SKIPPED), "").as_text()
    assert told.startswith("1 packages audited, 0 vulnerabilities")
    assert told.endswith("NOT AUDITED, not known to the source: c")


@given(st.text(), st.text())
def test_whatever_it_says_is_an_answer(out: str, err: str) -> None:
    assert audit.parse(out, err).as_text()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and in the place of Python what says that b is bad."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/agent.txt").write_text("b==2\n")
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nprint({said(GOOD, BAD)!r})\nraise SystemExit(1)\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", os.fspath(program))
    return tmp_path


def test_a_finding_refuses(project: Path) -> None:
    with pytest.raises(Invalid, match="2 known vulnerabilities") as caught:
        audit.run(project)
    assert caught.value.where == "agent.txt"
    assert "PYSEC-1" in caught.value.why


def test_a_finding_hides_no_file_that_was_not_audited(project: Path) -> None:
    program, requirements = project / "python", project / "requirements"
    for name in ("mute.txt", "partly.txt"):
        (requirements / name).write_text("c==3\n")
    first = program.read_text().splitlines()[0]
    program.write_text(
        f"{first}\nimport sys\nname = sys.argv[-1]\n"
        "if name.endswith('mute.txt'):\n    sys.exit('no connection')\n"
        f"print({said(GOOD, SKIPPED)!r} if 'partly' in name else {said(BAD)!r})\n"
    )
    with pytest.raises(Invalid, match="2 known vulnerabilities") as caught:
        audit.run(project)
    assert "PYSEC-1" in caught.value.why
    assert "mute.txt: NOT AUDITED" in caught.value.why
    assert "no connection" in caught.value.why
    assert "NOT AUDITED, not known to the source: c" in caught.value.why


def test_where_nothing_is_pinned_nothing_is_audited(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="There is nothing to audit") as caught:
        audit.run(tmp_path)
    assert caught.value.where == str(tmp_path)
