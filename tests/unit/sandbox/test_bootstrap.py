"""The script itself, as far as it can be looked at without setting anything up."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "bootstrap"
OURS = {"deploy", "sandbox"}


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("bootstrap_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader("bootstrap_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names


def test_it_can_be_started() -> None:
    assert SCRIPT.stat().st_mode & 0o111
    assert SCRIPT.read_text().startswith("#!/usr/bin/env python3\n")


def test_an_old_python_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load()
    monkeypatch.setattr(script, "OLDEST", (99, 0))
    assert script.main([]) == 7
    assert "Python 3.11" in capsys.readouterr().err


@pytest.mark.parametrize(
    "file",
    [SCRIPT, ROOT / "deploy" / "outcome.py", *sorted((ROOT / "sandbox").rglob("*.py"))],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_a_fresh_machine_has_everything_that_is_imported(file: Path) -> None:
    assert imported(file) <= set(sys.stdlib_module_names) | OURS
