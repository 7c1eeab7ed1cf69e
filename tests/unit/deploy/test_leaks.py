"""Secrets in what git keeps: found by form and by value, and never repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import leaks
from deploy.leaks import Leak, Line

LOG = """commit 1111111111111111111111111111111111111111
diff --git a/config.py b/config.py
--- a/config.py
+++ b/config.py
@@ -1,0 +2,2 @@
+++ b/no-file-but-a-line
+KEY = "sk-abcdefghijklmnopqrstuvwxyz"
-OLD = "gone"
commit 2222222222222222222222222222222222222222
diff --git a/tests/a.py b/tests/a.py
--- /dev/null
+++ b/tests/a.py
@@ -0,0 +1 @@
+TOKEN=Real-Value-1
"""
KINDS = {
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a Bot API token": "token: 123456789:AAabcdefghijklmnopqrstuvwxyz0123456",
    "a GitHub token": "ghp_" + "a1" * 18,
    "a GitLab token": "glpat-abcdefghij0123456789",
    "an AWS key": "AKIAABCDEFGHIJKLMNOP",
    "a Slack token": "xoxb-1234567890-abc",
    "an API key": "sk-abcdefghijklmnopqrstuvwxyz",
    "a password in a URL": "postgresql://app:S3cretS3cret@db:5432/app",
    "a secret variable": "export DB_PASSWORD='S3cretS3cret'",
}
HARMLESS = (
    "POSTGRES_PASSWORD=generate",
    "DATABASE_URL=postgresql://${POSTGRES_USER}:${POSTGRES_PASSWORD}@postgres:5432/app",
    "postgresql://user:password@host:5432/database",
    "it listens on 0.0.0.0:8000 since 2026-01-01T00:00:00Z",
    "sha256:83490def1f723413db5096591f7609ac52544805be93849170088ed04f5a2e0b",
    'PASSWORD: Annotated[str, Field(pattern="x")]',
    "TOKEN = os.environ['TOKEN']",
    "https://example.org:8443/a@b",
)


def lines(*texts: str, path: str = "a.py") -> list[Line]:
    return [Line("c", path, text) for text in texts]


def test_what_a_commit_has_added_is_read() -> None:
    found = list(leaks.added(LOG.splitlines()))
    assert [(line.commit, line.path) for line in found] == [
        ("111111111111", "config.py"),
        ("111111111111", "config.py"),
        ("222222222222", "tests/a.py"),
    ]
    assert found[1].text == 'KEY = "sk-abcdefghijklmnopqrstuvwxyz"'


def test_what_is_made_up_may_stand_among_the_examples_and_what_is_in_use_may_not() -> None:
    used = {"Real-Value-1": "TOKEN in .env here", "short": "X"}
    found = leaks.found_in(leaks.added(LOG.splitlines()), used, ("tests/",))
    assert found == (
        Leak("config.py", "an API key", "111111111111"),
        Leak("tests/a.py", "the value of TOKEN in .env here", "222222222222"),
    )
    assert leaks.found_in(lines("sk-" + "a" * 30, path="tests/b.py"), {}, ("tests/",)) == ()


@pytest.mark.parametrize("kind", leaks.FORMS)
def test_each_kind_is_known_by_its_form(kind: str) -> None:
    (found,) = leaks.found_in(lines(KINDS[kind]), {}, ())
    assert found.what == kind


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_none_is_left_alone(text: str) -> None:
    assert leaks.found_in(lines(text), {}, ()) == ()


def test_a_file_tells_of_each_kind_once_where_it_is_newest() -> None:
    text = KINDS["an AWS key"]
    twice = [Line("new", "a", text), Line("old", "a", text)]
    assert leaks.found_in(twice, {}, ()) == (Leak("a", "an AWS key", "new"),)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        (".env", True),
        ("a/.env.production", True),
        (".env.example", False),
        ("deploy/env.py", False),
        ("keys/id_ed25519", True),
        ("keys/id_ed25519.pub", False),
        ("server.pem", True),
        ("monkey", False),
    ],
)
def test_files_are_known_by_their_names(name: str, secret: bool) -> None:  # noqa: FBT001
    assert bool(leaks.secret_files([name])) == secret


@given(st.lists(st.text()), st.text(min_size=8))
def test_no_finding_repeats_the_secret(texts: list[str], value: str) -> None:
    known = list(leaks.added(texts))
    found = leaks.found_in([*known, *lines(value, path="p")], {value: "X in .env"}, ())
    assert Leak("p", "the value of X in .env", "c") in found
