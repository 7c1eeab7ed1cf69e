"""What is printed when nobody can read it, or not all of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import cli, terminal
from deploy.cli import Printer
from deploy.log import RunLog
from deploy.outcome import Invalid
from deploy.redact import Redactor
from deploy.session import caller

ROOT = Path(__file__).resolve().parents[3]
SAY = """
from deploy.log import RunLog
from deploy.redact import Redactor
log = RunLog(Redactor())
log.say("said"); log.show("shown"); log.echo("echoed")
"""


def shell(redirected: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run a Python text with its standard streams redirected by a shell."""
    return subprocess.run(
        ("sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-c", text),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_progress_is_never_put_on_stdout() -> None:
    done = shell("2>&-", SAY)
    assert (done.returncode, done.stdout) == (0, "")
    assert shell("", SAY).stderr == "said\n  | shown\nechoed\n"


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_output_that_is_lost_is_mentioned_once_and_changes_no_code(redirected: str) -> None:
    done = shell(redirected, "from deploy import terminal as t; t.out('a' * 99999); t.out('b')")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: the output cannot be written to stdout: ")
    assert len(done.stderr.splitlines()) == 1


def test_nobody_at_all_to_tell_is_no_error() -> None:
    assert shell(">&- 2>&-", "from deploy import terminal as t; t.out('a')").returncode == 0


@given(st.text(), st.sampled_from(["ascii", "latin-1", "utf-8"]))
def test_a_text_fits_any_encoding_and_loses_nothing_that_it_has(text: str, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert terminal.write(stream, text) == ""
    if text.isascii() and text.isprintable():
        stream.seek(0)
        assert stream.read() == f"{text}\n"


def test_a_document_needs_nothing_but_ascii() -> None:
    text = cli.document().answer({"a": "grün ✓ \U0001f600"})
    assert text.isascii()
    assert json.loads(text) == {"a": "grün ✓ \U0001f600"}


def test_a_printer_that_fails_changes_no_code() -> None:
    def fail(_failure: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(SystemExit) as caught:
        cli._leave(Invalid("x"), Printer(str, fail))
    assert caught.value.code == 7


def test_a_log_without_a_screen_still_is_one() -> None:
    log = RunLog(Redactor(), None)
    log.say("a")
    assert log.take().endswith(b" a\n")


def test_without_stdin_nobody_says_yes() -> None:
    done = shell("<&-", "from deploy import backups; print(backups._agreed())")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_a_git_user_may_be_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "gitconfig"
    config.write_bytes(b"[user]\n\tname = J\xf6rg\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert caller(tmp_path, {}, "inv").who == "J\N{REPLACEMENT CHARACTER}rg"
