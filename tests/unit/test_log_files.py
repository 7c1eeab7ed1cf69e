"""Log files that two releases write at the same time."""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from server_agent import log
from server_agent.log import SharedFile
from server_agent.settings import Settings

LINES = 3000
WRITERS = 3


def write(path: Path, number: int) -> None:
    handler = SharedFile(path, 100_000)
    for line in range(LINES):
        handler.emit(logging.LogRecord("a", logging.INFO, "f", 1, text(number, line), None, None))


def text(number: int, line: int) -> str:
    return f"{number} {line:04} {'x' * 20}"


def test_no_line_is_lost_or_torn_while_files_rotate(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "app.log"
    writers = [context.Process(target=write, args=(path, n)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    found = [file.read_text() for file in tmp_path.glob("app.log*")]
    assert len(found) == 3
    lines = [line for content in found for line in content.splitlines()]
    assert sorted(lines) == [text(n, line) for n in range(WRITERS) for line in range(LINES)]


def test_while_another_rotates_one_writes_on(tmp_path: Path) -> None:
    handler = SharedFile(tmp_path / "app.log", 10)
    with (tmp_path / "app.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for line in range(2):
            handler.emit(logging.LogRecord("a", logging.INFO, "f", 1, text(0, line), None, None))
    assert (tmp_path / "app.log").read_text() == f"{text(0, 0)}\n{text(0, 1)}\n"
    assert not (tmp_path / "app.log.1").exists()


def test_old_files_go(tmp_path: Path) -> None:
    handler = SharedFile(tmp_path / "app.log", 10)
    for number in range(20):
        said = f"a line that is long enough {number}"
        handler.emit(logging.LogRecord("a", logging.INFO, "f", 1, said, None, None))
    kept = sorted(file.name for file in tmp_path.glob("app.log.*"))
    assert kept == [f"app.log.{number}" for number in range(1, log.KEPT + 1)]
    assert (tmp_path / "app.log.1").read_text().endswith(" 19\n")


def test_each_logger_has_its_file(tmp_path: Path) -> None:
    handlers = log.files_in(tmp_path)
    formatter = log.JsonLines(log.secrets_of(replace(Settings(""), model_api_key="sk-secret")))
    for handler in handlers:
        handler.setFormatter(formatter)
    for name in ("telegram.updates", "reactive.model", "proactive", "other"):
        record = logging.LogRecord(
            f"server_agent.{name}", logging.INFO, "f", 1, f"{name} sk-secret", None, None
        )
        for handler in handlers:
            handler.handle(record)

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
