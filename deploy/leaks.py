"""Secrets where everybody reads them: found by their form, and by the values that are in use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

SHORTEST = 8  # characters of a value that is looked for: shorter ones stand in any text
LONGEST = 4096  # characters of a line that are looked at: what is longer was made by a machine
# By the form that whoever issues them gives them.
FORMS: Mapping[str, re.Pattern[str]] = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|AGE-SECRET-KEY-1[0-9A-Z]{20}"),
    "a Bot API token": re.compile(r"(?<!\d)\d{6,12}:[A-Za-z0-9_-]{32,}"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40})"),
    "a GitLab token": re.compile(r"\bglpat-[A-Za-z0-9_-]{20}"),
    "an AWS key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Slack token": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{24}"),
    "a password in a URL": re.compile(
        r"\b[a-z][a-z0-9+]*://[^\s/:@'\"`]+:(?!password@)[^\s/@'\"`$*{<%]{8,}@"
    ),
    "a secret variable": re.compile(
        r"^[\s+]*(?:export\s+)?[A-Z][A-Z0-9_]*(?:PASSWORD|SECRET|TOKEN|API_KEY)=['\"]?"
        r"(?!generate\b)[A-Za-z0-9+/_.:~-]{8,}['\"]?\s*$"
    ),
}
# Files that hold secrets by their name, as git lists them.
SECRET_FILE = re.compile(
    r"(^|/)(\.env(\.(?!example$|sample$|template$)[^/]+)?|id_(rsa|dsa|ecdsa|ed25519)"
    r"|[^/]+\.(pem|p12|pfx|key))$"
)
COMMIT = "commit "
WORKING = "the working tree"
MESSAGE = "the message"
INDENTED = "    "  # as git shows a message


@dataclass(frozen=True)
class Line:
    """A line that a commit, or the working tree, has added to a file, or of a commit's message."""

    commit: str
    path: str
    text: str


@dataclass(frozen=True, order=True)
class Leak:
    """A secret in a file that others read: where, and what; never the secret itself."""

    path: str
    what: str
    commit: str


def added(lines: Iterable[str], commit: str = WORKING) -> Iterator[Line]:
    """Given what `git log --patch` or `git diff` wrote, return the lines added, and the messages.

    Args:
        lines: Its lines.
        commit: What the lines before the first commit belong to.
    """
    path, heading = "", False
    for line in lines:
        if line.startswith(COMMIT):
            commit, path = line.removeprefix(COMMIT).strip()[:12], MESSAGE
        elif path == MESSAGE and line.startswith(INDENTED):
            yield Line(commit, MESSAGE, line.removeprefix(INDENTED))
        elif line.startswith("diff --"):  # --git, or --cc of a merge
            path, heading = "", True
        elif line.startswith("@@"):
            heading = False
        elif heading and line.startswith("+++ "):
            path = line[4:].strip().strip('"').removeprefix("b/")
        elif line.startswith("+"):
            yield Line(commit, path, line[1:])


def found_in(
    lines: Iterable[Line], values: Mapping[str, str], examples: Iterable[str]
) -> tuple[Leak, ...]:
    """Return the secrets in lines, each once for a file, where it was seen first.

    Args:
        lines: The lines, the newest first.
        values: The secrets in use, and what each is called.
        examples: What the paths of files begin with in which made-up ones stand; the values that
            are in use are looked for there too.
    """
    found: dict[tuple[str, str], Leak] = {}
    spared = tuple(examples)
    used = {value: name for value, name in values.items() if len(value) >= SHORTEST}
    for line in lines:
        text = line.text[:LONGEST]
        kinds = [f"the value of {name}" for value, name in used.items() if value in line.text]
        if not kinds and not line.path.startswith(spared):
            kinds = [kind for kind, form in FORMS.items() if form.search(text)]
        for kind in kinds:
            found.setdefault((line.path, kind), Leak(line.path, kind, line.commit))
    return tuple(sorted(found.values()))


def secret_files(names: Iterable[str]) -> tuple[str, ...]:
    """Given the files that git keeps, return those that hold secrets by their name."""
    return tuple(sorted(name for name in names if SECRET_FILE.search(name)))
