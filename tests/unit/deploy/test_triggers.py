"""What a webhook says, what is kept of it, and what a host is told about its triggers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.library import bundle
from deploy.outcome import Invalid
from deploy.served import section
from deploy.triggers import events, pushed, queue, units
from deploy.triggers.events import Answer, Push
from deploy.triggers.install import ALONG
from deploy.triggers.listen import secret_of
from deploy.triggers.units import Place

SECRET = b"planted-webhook-secret"
SHA = "a" * 40
PLACE = Place(
    project="shop",
    python="/usr/bin/python3",
    library="/opt/shop/triggers/lib/0123456789abcdef",
    plan="/opt/shop/triggers/plan.json",
    root="/opt/shop",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["ref", "after", "deleted", "pusher", "user_username", "name"])


def headers(body: bytes, **more: bytes) -> dict[bytes, bytes]:
    told = {
        "x-hub-signature-256": events.signature(body, SECRET),
        "x-github-event": b"push",
        "x-github-delivery": b"one",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return {name.encode(): value for name, value in told.items()}


def read(said: object, **more: bytes) -> Push | Answer:
    body = json.dumps(said).encode()
    return events.read(headers(body, **more), body, SECRET, "main")


def test_a_push_to_the_branch_is_one() -> None:
    found = read({"ref": "refs/heads/main", "after": SHA, "pusher": {"name": "ann"}})
    assert isinstance(found, Push)
    assert (found.sha, found.who, len(found.marks)) == (SHA, "ann", 2)
    assert found.marks[0] == hashlib.sha256(b"one").hexdigest()
    told = {b"x-gitlab-token": SECRET, b"x-gitlab-event": b"Push Hook", b"idempotency-key": b"1"}
    body = json.dumps({"ref": "refs/heads/main", "user_username": "bob\n\x1b[31m" * 99}).encode()
    other = events.read(told, body, SECRET, "main")
    assert isinstance(other, Push)
    assert (other.sha, len(other.marks), len(other.who)) == ("", 1, 60)
    assert other.who.isprintable()


@given(st.binary(), st.binary(), st.binary())
def test_nobody_is_heard_without_the_secret(body: bytes, said: bytes, other: bytes) -> None:
    for told in (
        {},
        {b"x-hub-signature-256": said},
        {b"x-gitlab-token": said, b"x-gitlab-event": b"Push Hook"},
        {b"x-hub-signature-256": events.signature(body, SECRET + b"x" + other)},
        {b"x-hub-signature-256": said, b"x-gitlab-token": SECRET},
    ):
        found = events.read(told, body, SECRET, "main")
        assert isinstance(found, Answer)
        assert found.status == 403


@given(st.dictionaries(KEYS, JSON) | JSON, st.binary(max_size=300))
def test_whatever_is_signed_is_a_push_to_the_branch_or_an_answer(
    said: object, delivery: bytes
) -> None:
    found = read(said, x_github_delivery=delivery)
    if isinstance(found, Push):
        assert isinstance(said, dict)
        assert said["ref"] == "refs/heads/main"
        assert delivery
    else:
        assert found.status in (200, 400)


@given(st.text())
def test_no_other_name_is_the_branch(name: str) -> None:
    for ref in (name, f"refs/heads/main{name}", f"refs/heads/{name}main"):
        if ref != "refs/heads/main":
            assert read({"ref": ref, "after": SHA}).__class__ is Answer


def test_a_branch_that_is_gone_is_not_deployed() -> None:
    for said in ({"after": "0" * 40}, {"after": SHA, "deleted": True}):
        found = read({"ref": "refs/heads/main", **said})
        assert isinstance(found, Answer)
        assert "deleted" in found.text


def push(*marks: str, sha: str = SHA) -> Push:
    return Push(tuple(marks), sha, "ann")


def test_the_queue_keeps_the_newest_and_is_emptied_by_it_alone(tmp_path: Path) -> None:
    book = queue.Book(tmp_path)
    assert queue.wanted(tmp_path) is None
    assert book.take([push("a"), push("b"), push("a", "c"), push("d")]) == [True, True, False, True]
    assert queue.wanted(tmp_path) == push("d")
    queue.done(tmp_path, push("b"))
    assert queue.wanted(tmp_path) == push("d")
    queue.done(tmp_path, push("d"))
    assert queue.wanted(tmp_path) is None
    assert book.take([push("b")]) == [False]
    assert queue.wanted(tmp_path) is None


def test_the_book_is_read_again_also_after_a_power_cut(tmp_path: Path) -> None:
    queue.Book(tmp_path).take([push("a", "b")])
    with (tmp_path / queue.SEEN).open("a") as seen:
        seen.write("half-a-ma")
    book = queue.Book(tmp_path)
    assert book.take([push("a"), push("b"), push("c")]) == [False, False, True]
    assert queue.Book(tmp_path).take([push("c")]) == [False]


def test_what_could_not_be_written_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    book = queue.Book(tmp_path)
    book.take([push("a")])
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            book.take([push("b", sha="b" * 40)])
    assert queue.wanted(tmp_path) == push("a")
    assert not list(tmp_path.glob(".part.*"))
    assert book.take([push("b", sha="b" * 40)]) == [True]


def test_what_a_queue_leads_to_is_neither_read_nor_made(tmp_path: Path) -> None:
    queue.want(tmp_path, push("a"))
    secret = tmp_path / "elsewhere"
    (tmp_path / queue.WANTED).replace(secret)
    (tmp_path / queue.WANTED).symlink_to(secret)
    assert queue.wanted(tmp_path) == queue.UNREADABLE
    queue.done(tmp_path, queue.UNREADABLE)
    assert (queue.wanted(tmp_path), secret.exists()) == (None, True)
    for name in (queue.LOCK, queue.WORKING):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic link"), queue.alone(tmp_path):
        pass
    with pytest.raises(OSError, match="symbolic link"):
        queue.want(tmp_path, push("b"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "nested"])
def test_a_queue_that_is_odd_wants_something(tmp_path: Path, kind: str) -> None:
    at = tmp_path / queue.WANTED
    if kind == "pipe":
        os.mkfifo(at)
    elif kind == "folder":
        at.mkdir()
    else:
        at.write_text("[" * 60_000)
    assert queue.wanted(tmp_path) == queue.UNREADABLE


def test_who_wanted_it_is_shown_as_a_name_alone(tmp_path: Path) -> None:
    said = {"marks": ["a"], "sha": "\x1b[31m", "who": "ann\x1b[31m\u202e" + "x" * 100}
    (tmp_path / queue.WANTED).write_text(json.dumps(said))
    assert queue.wanted(tmp_path) == Push(("a",), "", ("ann[31m" + "x" * 100)[:60])


def test_a_book_that_is_garbled_knows_the_rest(tmp_path: Path) -> None:
    queue.Book(tmp_path).take([push("a")])
    with (tmp_path / queue.SEEN).open("ab") as seen:
        seen.write(b"\xff\xfe\n")
    assert queue.Book(tmp_path).take([push("a"), push("b")]) == [False, True]


@given(st.binary(max_size=60))
def test_a_queue_that_is_garbled_wants_something_once(text: bytes) -> None:
    import tempfile  # noqa: PLC0415 - a folder for each example

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / queue.WANTED).write_bytes(text)
        found = queue.wanted(folder)
        assert found
        queue.done(folder, found)
        assert queue.wanted(folder) is None


@given(st.lists(st.binary(max_size=40)))
def test_what_git_says_holds_the_branch_or_not(names: list[bytes]) -> None:
    others = [b"0 1 " + name.replace(b"\n", b"") + b"\n" for name in names]
    others = [line for line in others if line != b"0 1 refs/heads/main\n"]
    assert pushed.wanted(others, b"main") is None
    assert pushed.wanted([*others, b"0 2 refs/heads/main\n", *others], b"main") == b"2"


def test_what_git_tells_its_hooks_is_told_to_nobody_else() -> None:
    kept = pushed.clean({"GIT_DIR": ".", "GIT_QUARANTINE_PATH": "x", "PATH": "/bin", "LEGIT_": "1"})
    assert kept == {"PATH": "/bin", "LEGIT_": "1"}


def test_the_secret_is_long_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET.decode()}\n")
    path.chmod(0o600)
    assert secret_of(path, {}) == SECRET
    assert secret_of(path, {"LISTEN_SECRET": "from the environment"}) == b"from the environment"
    with pytest.raises(Invalid, match="fewer than"):
        secret_of(path, {"LISTEN_SECRET": "short"})
    path.chmod(0o604)
    with pytest.raises(Invalid, match="Others may read"):
        secret_of(path, {})


def texts() -> dict[str, str]:
    return {
        "hook": units.hook(PLACE),
        "shop-listen.service": units.listen(PLACE, "shop-hooks", "main", "/opt/q", "/opt/l"),
        "shop-deploy.path": units.watch(PLACE, "/opt/q/wanted.json"),
        "shop-deploy.service": units.deployment(PLACE, "deploy"),
    }


def test_the_units_say_what_they_should() -> None:
    found = texts()
    assert (
        "ExecStart=/usr/bin/python3 -s -m deploy.triggers.listen /opt/shop/triggers/plan.json"
        in (found["shop-listen.service"])
    )
    assert "\nUser=shop-hooks\n" in found["shop-listen.service"]
    words = (PLACE, "shop-hooks", "other; branch=%n", "/opt/q", "/opt/l")
    assert units.listen(*words) != found["shop-listen.service"]  # it is started anew then
    assert "\nUser=deploy\n" in found["shop-deploy.service"]
    assert not [name for name, text in found.items() if "{" in text.replace("{ cat", "")]


@pytest.mark.parametrize("odd", ["/opt/a b", "/opt/$(id)", "/opt/%h", "/opt/a\nb", ""])
def test_what_would_be_read_in_another_way_is_not_written(odd: str) -> None:
    with pytest.raises(ValueError, match="not to be written"):
        units.hook(replace(PLACE, library=odd))
    with pytest.raises(ValueError, match="no name of a user"):
        units.deployment(PLACE, odd)


def test_what_comes_along_does_without_anything_else(tmp_path: Path) -> None:
    found = bundle(*ALONG)
    assert found.name == bundle(*ALONG).name != bundle().name
    subprocess.run(("tar", "-xzC", str(tmp_path)), input=found.data, check=True, timeout=60)
    text = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import deploy.triggers.listen, yaml"
    python = shutil.which("python3") or "python3"
    isolated = (python, "-I", "-S", "-c", text)
    done = subprocess.run(isolated, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(Invalid, match="no Python package nonsense"):
        bundle("nonsense")


def test_settings_on_a_host_are_copied_and_passed_on_as_anywhere() -> None:
    data = {"deploy": {"project": "shop"}, "smoke": {"checks": [{"name": "x"}]}, "environment": {}}
    found = section(data)
    assert found.smoke.checks[0].name == "x"
    assert found.model_dump(mode="json", exclude={"environment"}) == {
        "deploy": {"project": "shop"},
        "smoke": {"checks": [{"name": "x"}]},
    }
    other = found.model_copy(update={"deploy": section({"project": "other"})})
    assert (found.deploy.project, other.deploy.project) == ("shop", "other")
