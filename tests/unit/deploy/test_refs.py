"""What a person may call a commit, and what it means."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy import refs
from deploy.command import command
from deploy.outcome import Invalid

FINE = [
    "main",
    "v1.2",
    "feature/a-b_c",
    "HEAD~2",
    "HEAD^",
    "main~1^2",
    "abc1234",
    "a@b",
    "feat/ünï-ß",
    "we,ird!",
    "fix(ui)/#12",
    "refs/heads/main",
    "日本",
    "50%+{1}=x",
]
FOREIGN = [
    "--upload-pack=x",
    "-f",
    "main; touch /tmp/x",
    "main;id",
    "$(id)",
    "$(touch /tmp/x)",
    "`id`",
    "a b",
    "a\nb",
    "main\n",
    "a\u00a0b",
    "a\u202eb",
    "a\udcff",
    "a..b",
    "a@{1}",
    "@",
    "main:path",
    "a?",
    "a*",
    "a[b",
    "a\\b",
    "a~b",
    "main^{tree}",
    "",
    "~1",
    "a" * 300,
    "../x",
    "/a",
    "a/",
    "a//b",
    ".a",
    "a/.b",
    "a.",
    "a.lock",
    "a.lock/b",
    "'",
]
PIECES = st.sampled_from([*FINE, *FOREIGN, *"-./~^@{}$;ü1 \n\t", "lock", "HEAD"])
TEXTS = st.text(max_size=30) | st.lists(PIECES, max_size=4).map("".join)


def is_name_to_git(name: str) -> bool:
    words = ("git", "check-ref-format", f"refs/heads/{name}")
    return subprocess.run(words, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("ref", FINE)
def test_refs_that_are_fine(ref: str) -> None:
    assert refs.checked(ref) == ref


@pytest.mark.parametrize("ref", FOREIGN)
def test_refs_that_look_like_something_else(ref: str) -> None:
    with pytest.raises(Invalid, match="is no git ref"):
        refs.checked(ref)


@settings(max_examples=300)
@example("a.lock")
@given(TEXTS)
def test_what_is_accepted_is_one_word_that_git_takes_for_a_name(ref: str) -> None:
    try:
        refs.checked(ref)
    except Invalid:
        return
    assert not ref.startswith("-")
    assert shlex.split(command("git", ref).wire().partition("<")[0])[-2:] == ["git", ref]
    assert not set(ref) & set(" \t\r\n$`;|&<>'\"\\*?[:")
    name, steps = refs.split(ref)
    assert name + steps == ref
    assert is_name_to_git(name)


@settings(max_examples=150)
@given(TEXTS)
def test_what_git_takes_for_a_name_is_accepted(name: str) -> None:
    foreign = refs.FOREIGN & set(name) or name.startswith("-") or name == "@"
    if name.isprintable() and len(name) <= refs.LONGEST and not foreign and is_name_to_git(name):
        assert refs.checked(name) == name


@settings(max_examples=300)
@example("HEAD")
@example("@")
@example("refs/heads/main")
@example("a\x7fb")
@given(TEXTS)
def test_a_branch_is_what_git_takes_for_one(name: str) -> None:
    words = ("git", "check-ref-format", "--branch", name)
    done = "\0" not in name and subprocess.run(
        words, cwd="/", capture_output=True, timeout=30, check=False
    )
    assert refs.is_branch(name) == bool(done and done.returncode == 0)


@pytest.mark.parametrize(
    ("name", "meanings"),
    [
        ("main", ("refs/remotes/origin/main", "refs/tags/main")),
        ("origin/main", ("refs/remotes/origin/main",)),
        ("heads/main", ("refs/remotes/origin/main",)),
        ("refs/heads/main", ("refs/remotes/origin/main",)),
        ("refs/remotes/origin/a/b", ("refs/remotes/origin/a/b",)),
        ("tags/v1", ("refs/tags/v1",)),
        ("refs/tags/v1", ("refs/tags/v1",)),
        ("HEAD", ()),
        ("origin/HEAD", ()),
        ("heads/HEAD", ()),
        ("refs/stash", ("refs/remotes/origin/refs/stash", "refs/tags/refs/stash")),
    ],
)
def test_a_name_means_what_origin_calls_so(name: str, meanings: tuple[str, ...]) -> None:
    assert refs.meanings(name) == meanings
