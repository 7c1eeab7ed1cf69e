"""Log files that two releases write at the same time."""

from __future__ import annotations

import json
import logging
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from server_agent import log
from server_agent.settings import Settings

LINES = 3000
WRITERS = 3


def write(folder: Path, number: int, largest: int = 100_000, lines: int = LINES) -> None:
    log.LARGEST = largest
    handler, *others = log.files_in(folder)
    for other in others:
        other.close()
    for line in range(lines):
        handler.handle(logging.LogRecord("a", logging.INFO, "f", 1, text(number, line), None, None))
    handler.close()


def text(number: int, line: int) -> str:
    return f"{number} {line:04} {'x' * 20}"


def test_no_line_is_lost_or_torn_while_files_rotate(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write, args=(tmp_path, n)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    found = [file.read_text() for file in tmp_path.glob("app.log*")]
    assert len(found) == 3
    lines = [line for content in found for line in content.splitlines()]
    assert sorted(lines) == [text(n, line) for n in range(WRITERS) for line in range(LINES)]


def test_old_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LARGEST", 10)
    write(tmp_path, 1, 10, 20)
    kept = sorted(file.name for file in tmp_path.glob("app.log.*"))
    assert kept == [f"app.log.{number}" for number in range(1, log.KEPT + 1)]
    assert (tmp_path / "app.log").read_text() == f"{text(1, 19)}\n"


def test_a_disk_that_is_full_ends_nothing_and_tells_no_secret(tmp_path: Path) -> None:
    code = """
import logging, resource, signal, sys
from server_agent import log
from server_agent.settings import Settings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log.configure(Settings("", log_dir=sys.argv[1], model_api_key="sk-secret"))
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
for number in range(9):
    logging.getLogger().info("%s sk-secret", number)
resource.setrlimit(resource.RLIMIT_FSIZE, before)  # who measures coverage has a file to write
"""
    words = (sys.executable, "-c", code, str(tmp_path / "logs"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    said = [json.loads(line)["message"] for line in done.stdout.splitlines()]
    assert said == [f"{number} ***" for number in range(9)]
    assert done.stderr == ""


def test_each_logger_has_its_file(tmp_path: Path) -> None:
    handlers = log.files_in(tmp_path)
    assert {file.name for file in tmp_path.glob("*.log")} == {f"{name}.log" for name in log.FILES}
    formatter = log.JsonLines(log.secrets_of(replace(Settings(""), model_api_key="sk-secret")))
    for handler in handlers:
        handler.setFormatter(formatter)
    for name in ("telegram.updates", "reactive.model", "proactive", "other"):
        record = logging.LogRecord(
            f"server_agent.{name}", logging.INFO, "f", 1, f"{name} sk-secret", None, None
        )
        for handler in handlers:
            handler.handle(record)
    for handler in handlers:
        handler.close()

    def said(name: str) -> list[str]:
        lines = (tmp_path / f"{name}.log").read_text().splitlines()
        return [json.loads(line)["message"] for line in lines]

    assert said("telegram") == ["telegram.updates ***"]
    assert said("reactive") == ["reactive.model ***"]
    assert said("proactive") == ["proactive ***"]
    assert len(said("app")) == 4


def test_a_folder_that_cannot_be_written_to_is_only_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log.configure(Settings("", log_dir=str(tmp_path / "file")))
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert "no log can be written to" in capsys.readouterr().out
