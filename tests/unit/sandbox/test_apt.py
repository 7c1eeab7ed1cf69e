"""Where packages come from: sources files and apt's answers."""

from __future__ import annotations

import pytest

from deploy.checks import packages
from sandbox.machine import apt

DEB822 = """\
Types: deb
# a remark
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""
ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main contrib
deb-src https://mirror.example/debian bookworm main
deb https://mirror.example/debian-security bookworm-security main
"""
PUBLIC = apt.Mirrors(apt.DEFAULT_MIRROR, apt.DEFAULT_SECURITY)


@pytest.mark.parametrize(
    ("texts", "mirrors"),
    [
        (
            [DEB822],
            apt.Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security"),
        ),
        (
            [ONE_LINE],
            apt.Mirrors("https://mirror.example/debian", "https://mirror.example/debian-security"),
        ),
        ([], PUBLIC),
        (["deb https://deb.nodesource.com/node_20.x nodistro main"], PUBLIC),
        (["deb mirror+file:/etc/apt/mirrors/debian.list bookworm main"], PUBLIC),
        (
            ["Enabled: no\n" + DEB822],
            apt.Mirrors(apt.DEFAULT_MIRROR, "http://mirror.example/debian-security"),
        ),
        (["deb", "Types deb\nnonsense: : :"], PUBLIC),
    ],
)
def test_the_machines_own_mirrors_are_found(texts: list[str], mirrors: apt.Mirrors) -> None:
    assert apt.mirrors_in(texts) == mirrors


def test_a_source_that_is_switched_off_is_not_a_source() -> None:
    assert apt.sources_in("Enabled: no\nURIs: http://a/debian\nSuites: x\n") == []


POLICY = """\
docker-compose:
  Installed: (none)
  Candidate: {}
  Version table:
docker-buildx:
  Installed: (none)
  Candidate: (none)
"""


@pytest.mark.parametrize(
    ("version", "package"),
    [("1.29.2-3", None), ("2.26.1-4", "docker-compose"), ("(none)", None)],
)
def test_the_old_compose_is_not_taken_for_the_new_one(version: str, package: str | None) -> None:
    offered = packages.parse_candidates(POLICY.format(version))
    assert packages.pick("compose", offered) == package
    assert packages.pick("buildx", offered) is None


def test_a_plugin_comes_from_the_package_that_brings_nothing_else() -> None:
    offered = {"docker-compose": "1.29.2-6", "docker-compose-v2": "2.24.6", "docker-buildx": "0.14"}
    assert packages.pick("compose", offered) == "docker-compose-v2"
    assert packages.pick("buildx", offered) == "docker-buildx"
