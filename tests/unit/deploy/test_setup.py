"""What a set-up makes of what it is told, and how it walks its parts."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.checks import folders, packages
from deploy.host import local_host
from deploy.host.process import CommandFailed
from deploy.layout import Layout
from deploy.log import RunLog
from deploy.outcome import Exit, Invalid, Unreachable
from deploy.redact import Redactor
from deploy.run import Caller
from deploy.session import Session
from deploy.settings import Deploy, Proxy, Settings
from deploy.setup import code, trust
from deploy.setup.parts import PARTS
from deploy.setup.site import Part, Server, Site, Wish, server_of
from deploy.setup.verb import (
    Outcome,
    State,
    as_text,
    foresee,
    put_right,
    summary,
    walk,
)
from deploy.setup.verb import code as exit_code

ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAIEJBzovvQhWM412wSXxwqUH9QEJQinsCTO316eB5eLyB"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("git@github.com:ann/shop.git", Server("github.com", 22, "ann/shop")),
        ("github.com:ann/shop", Server("github.com", 22, "ann/shop")),
        ("ssh://git@host:2222/srv/shop.git", Server("host", 2222, "srv/shop")),
        ("ssh://host/shop", Server("host", 22, "shop")),
        ("https://github.com/ann/shop.git", None),
        ("file:///srv/shop.git", None),
        ("/srv/shop.git", None),
        ("", None),
        ("-oProxyCommand=x:shop", None),
    ],
)
def test_ssh_leads_to_the_server_of_an_address(url: str, server: Server | None) -> None:
    assert server_of(url) == server


@pytest.mark.parametrize("url", ["ssh:///shop", "ssh://-oX=y/shop", "ssh://host:port/shop"])
def test_what_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="no address"):
        server_of(url)


@given(st.text() | st.text().map("ssh://{}".format))
def test_of_any_text_a_server_has_a_name_that_is_no_option(text: str) -> None:
    try:
        found = server_of(text)
    except Invalid:
        return
    assert found is None or not found.name.startswith("-")


@pytest.mark.parametrize(
    ("server", "entry", "page"),
    [
        (Server("github.com", 22, "a/b"), "github.com", "https://github.com/a/b/settings/keys/new"),
        (Server("git.example", 29, "a/b"), "[git.example]:29", "deploy keys of a/b on git.example"),
    ],
)
def test_a_server_is_named_as_ssh_and_people_name_it(server: Server, entry: str, page: str) -> None:
    assert (server.entry, server.page) == (entry, page)


def test_a_fingerprint_is_the_one_that_ssh_tells() -> None:
    # As GitHub publishes it.
    assert trust.fingerprint(ED25519) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


def test_host_keys_are_those_of_the_host_alone() -> None:
    text = f"# a remark\nhost ssh-ed25519 {ED25519}\n[host]:29 ssh-ed25519 {OTHER}\nhost ssh-rsa\n"
    assert trust.host_keys(text, "host") == {"ssh-ed25519": ED25519}
    assert trust.host_keys(text, "[host]:29") == {"ssh-ed25519": OTHER}
    assert trust.host_keys("host ssh-rsa no!base64", "host") == {}


@given(st.text(), st.text(min_size=1))
def test_garbage_holds_no_key_and_breaks_nothing(text: str, entry: str) -> None:
    assert all(trust.fingerprint(key) for key in trust.host_keys(text, entry).values())


@pytest.mark.parametrize(
    ("pinned", "shown", "kinds"),
    [
        ({}, {"a": "1"}, ()),
        ({"a": "1"}, {}, ()),
        ({"a": "1"}, {"a": "1", "b": "2"}, ()),
        ({"a": "1"}, {"a": "2"}, ("a",)),
        ({"a": "1", "b": "1"}, {"a": "1", "b": "2"}, ("b",)),
    ],
)
def test_a_key_has_changed_when_the_same_kind_is_another(
    pinned: dict[str, str], shown: dict[str, str], kinds: tuple[str, ...]
) -> None:
    assert trust.changed(pinned, shown) == kinds


def test_git_shows_our_key_to_whom_we_trust_and_asks_nothing() -> None:
    told = code.ssh_command(Layout("/srv/shop"))
    assert told.startswith("ssh -i /srv/shop/ssh/deploy_key ")
    for word in ("IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "BatchMode=yes"):
        assert f"-o {word}" in told


TRIXIE = {
    "docker.io": "26.1",
    "docker-cli": "26.1",
    "docker-compose": "2.26.1-4",
    "docker-buildx": "0.13",
}
NOBLE = {"docker.io": "27.5", "docker-compose-v2": "2.33", "docker-buildx": "0.20"}
BOOKWORM = {"docker.io": "20.10", "docker-compose": "1.29.2-3"}


@pytest.mark.parametrize(
    ("missing", "offered", "names"),
    [
        (
            ("docker", "compose"),
            TRIXIE,
            ("docker.io", "docker-cli", "docker-compose", "docker-buildx"),
        ),
        (("docker", "compose"), NOBLE, ("docker.io", "docker-compose-v2", "docker-buildx")),
        (("docker", "compose"), BOOKWORM, ("docker.io",)),
        (("compose",), TRIXIE, ("docker-compose",)),
        (("git", "crontab", "ssh", "ssh-keygen"), TRIXIE, ("cron", "git", "openssh-client")),
        ((), TRIXIE, ()),
    ],
)
def test_packages_are_those_of_the_distribution(
    missing: tuple[str, ...], offered: dict[str, str], names: tuple[str, ...]
) -> None:
    assert packages.to_install(missing, offered) == names
    assert set(names) <= set(packages.asked_about(missing))


def test_what_a_mode_allows_beyond_what_it_should() -> None:
    assert folders.Place("/x", 0o755, writable=True).beyond(0o700) == 0o055
    assert folders.Place("/x", 0o1700, writable=True).beyond(0o755) == 0


def test_no_part_needs_one_that_comes_later() -> None:
    known: set[str] = set()
    for part in PARTS:
        assert set(part.needs) <= known
        known.add(part.name)


class Host:
    """What a part of these tests is about: things that are there or not."""

    def __init__(self, *there: str) -> None:
        self.there = set(there)
        self.done: list[str] = []

    def part(self, name: str, *needs: str, works: bool = True) -> Part:
        def lacks(_site: Site) -> tuple[str, ...]:
            return () if name in self.there else (f"make {name}",)

        def provide(_site: Site) -> None:
            self.done.append(name)
            if works:
                self.there.add(name)

        return Part(name, needs, lacks, provide, lambda _site: (f"{name} is told",))


def refusing(name: str, error: Exception, *needs: str) -> Part:
    def lacks(_site: Site) -> tuple[str, ...]:
        raise error

    return Part(name, needs, lacks, lambda _site: None)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    settings = Settings(
        deploy=Deploy(project="shop", title="Shop", root="/nowhere"),
        proxy=Proxy(container="shop_proxy", network="net"),
    )
    log = RunLog(Redactor(), io.StringIO())
    here = local_host(log)
    caller = Caller("ann", "laptop", "inv")
    return Site(Session(tmp_path, settings, here, here, log, caller), Wish(), None)


def by_state(found: tuple[Outcome, ...]) -> dict[str, State]:
    return {item.name: item.state for item in found}


def test_what_is_right_is_left_alone_and_the_rest_is_put_right(site: Site) -> None:
    host = Host("a")
    parts = (host.part("a"), host.part("b", "a"))
    first = walk(parts, site, put_right)
    assert by_state(first) == {"a": State.RIGHT, "b": State.DONE}
    assert "b is told" in as_text(first)
    assert "Ready" in summary(first)
    assert host.done == ["b"]
    second = walk(parts, site, put_right)
    assert set(by_state(second).values()) == {State.RIGHT}
    assert summary(second).startswith("Nothing to do")
    assert host.done == ["b"]
    assert exit_code(first) is exit_code(second) is Exit.OK


def test_what_needs_a_part_that_failed_waits_and_the_rest_goes_on(site: Site) -> None:
    host = Host()
    refused = refusing("a", Invalid("No", why="one\n\n two", next_step="inv backup.schedule"))
    parts = (refused, host.part("b", "a"), host.part("c"), host.part("d", "b"))
    found = walk(parts, site, put_right)
    assert by_state(found) == {
        "a": State.FAILED,
        "b": State.WAITS,
        "c": State.DONE,
        "d": State.WAITS,
    }
    assert exit_code(found) is Exit.INVALID
    text = as_text(found)
    assert "No: one; two" in text
    assert "→ inv backup.schedule --host local" in text
    assert "Not ready" in text


def test_what_was_done_and_did_not_help_has_failed(site: Site) -> None:
    host = Host()
    (found,) = walk((host.part("a", works=False),), site, put_right)
    assert found.state is State.FAILED
    assert "still to be done: make a" in found.what


def test_what_failed_and_is_right_all_the_same_another_has_done(site: Site) -> None:
    host = Host()
    parts = (host.part("a"), host.part("b", works=False))

    def failing(part: Part) -> Part:
        def provide(site: Site) -> None:
            part.provide(site)
            raise CommandFailed("`ln` failed with exit code 1")

        return replace(part, provide=provide)

    found = walk([failing(part) for part in parts], site, put_right)
    assert by_state(found) == {"a": State.DONE, "b": State.FAILED}
    assert "another set-up may have been at work" in found[1].cure


def test_a_plan_does_nothing(site: Site) -> None:
    host = Host("a")
    unseen = refusing("c", Invalid("cannot be seen yet"), "b")
    found = walk((host.part("a"), host.part("b"), unseen), site, foresee)
    assert by_state(found) == {"a": State.RIGHT, "b": State.WILL, "c": State.WILL}
    assert found[2].what == "is looked at after b"
    assert host.done == []
    assert "without --plan" in summary(found)


def test_a_plan_says_what_stands_in_the_way(site: Site) -> None:
    (found,) = walk((refusing("a", Invalid("No")),), site, foresee)
    assert found.state is State.FAILED


@pytest.mark.parametrize("act", [put_right, foresee])
def test_a_host_that_is_gone_ends_it(site: Site, act: object) -> None:
    with pytest.raises(Unreachable):
        walk((refusing("a", Unreachable("Gone")),), site, act)  # type: ignore[arg-type]
