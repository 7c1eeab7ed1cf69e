"""What a copy shares with what is live, and what a rehearsal on it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy import releases
from deploy.docker import render
from deploy.docker.compose import Place
from deploy.outcome import Invalid
from deploy.releases import Release
from deploy.report import text
from deploy.smoke import Finding
from deploy.steps import live, rehearse

RENDERED = """
x-any: &any {}
services:
  db:
    image: postgres:15
    container_name: shop_db
    restart: always
    ports: ["5432:5432"]
    networks: {inner: {aliases: [other]}}
    environment: {POSTGRES_DB: "${POSTGRES_DB:?}"}
    volumes:
    - data:/var/lib/postgresql/data
    - ./postgresql.conf:/etc/postgresql.conf
    - ${INIT:-./init}:/docker-entrypoint-initdb.d
    healthcheck: {test: [CMD, pg_isready]}
  web-r1:
    image: shop:abc
    pull_policy: never
    container_name: shop_web_r1
    labels: {deploy.project: shop}
    network_mode: host
    extra_hosts: ["db:10.0.0.1"]
    deploy: {replicas: 3, resources: {limits: {memory: 1g}}}
    env_file: [/r/env]
    volumes:
    - /srv/uploads:/uploads
    - /etc/ssl/certs:/certs:ro
    - {type: bind, source: /var/run/docker.sock, target: /var/run/docker.sock, read_only: true}
    - /cache
    - {type: tmpfs, target: /tmp}
networks:
  inner: {name: shop_inner}
volumes:
  data: {name: shop_data, external: true}
  deploy-proxy-data:
secrets:
  key: {file: ./key}
"""
IMAGES = {"db": "sha256:1", "web-r1": "sha256:2"}
PLACE = Place("r1", "/r/source", "/r/env", "/r/compose.yml", "shop:abc")


def apart(**images: str) -> dict[str, Any]:
    text = render.apart(yaml.safe_load(RENDERED), images or IMAGES, PLACE)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def alone(**service: Any) -> dict[str, Any]:
    """Return what a service is that stands apart."""
    data = {
        "services": {"web": {"image": "x", **service}},
        "volumes": {"data": {"name": "shop_data"}},
        "secrets": {"own": {"file": "./own"}, "others": {"file": "/etc/shadow"}},
        "configs": {"above": {"file": "../../other/env"}, "told": {"content": "a"}},
    }
    found = yaml.safe_load(render.apart(data, {"web": "sha256:1"}, PLACE))
    assert found["secrets"] == {"own": {"file": "./own"}}
    assert found["configs"] == {"told": {"content": "a"}}
    assert found["volumes"] == {"data": None}
    service = found["services"]["web"]
    for key, value in (("image", "sha256:1"), ("pull_policy", "never"), ("restart", "no")):
        assert service.pop(key) == value
    return service


def test_what_stands_apart_has_a_network_and_volumes_of_its_own() -> None:
    found = apart()
    assert found["networks"] == {"default": {"internal": True}}
    assert found["volumes"] == {"data": None, "deploy-proxy-data": None}
    for service in found["services"].values():
        ties = ("container_name", "ports", "networks", "network_mode", "extra_hosts", "labels")
        assert not set(ties) & set(service)
        assert service["restart"] == "no"


def test_what_stands_apart_is_defined_as_before_and_runs_the_given_image() -> None:
    services = apart()["services"]
    assert set(services) == set(IMAGES)
    assert services["db"]["environment"] == {"POSTGRES_DB": "${POSTGRES_DB:?}"}
    assert services["db"]["healthcheck"] == {"test": ["CMD", "pg_isready"]}
    assert {name: item["image"] for name, item in services.items()} == IMAGES
    assert services["web-r1"]["env_file"] == ["/r/env"]
    assert services["web-r1"]["deploy"] == {"resources": {"limits": {"memory": "1g"}}}
    assert set(apart(db="sha256:1")["services"]) == {"db"}


def test_nothing_on_the_host_can_be_changed_from_there() -> None:
    services = apart()["services"]
    conf = {"type": "bind", "source": "./postgresql.conf", "target": "/etc/postgresql.conf"}
    assert services["db"]["volumes"][1:] == [
        {**conf, "read_only": True},
        {"type": "volume", "target": "/docker-entrypoint-initdb.d"},
    ]
    assert services["web-r1"]["volumes"] == [
        {"type": "volume", "target": "/uploads"},
        {"type": "volume", "target": "/certs"},
        {"type": "volume", "target": "/var/run/docker.sock"},
        {"type": "volume", "target": "/cache"},
        {"type": "tmpfs", "target": "/tmp"},
    ]


def test_a_service_that_is_not_there_is_named() -> None:
    with pytest.raises(Invalid, match="no service cache"):
        apart(cache="sha256:3")


def findings(**good: bool) -> tuple[Finding, ...]:
    return tuple(Finding(name, ok, f"{name} said so") for name, ok in good.items())


def told(*, start: bool = True, disk: bool = True, **checks: bool) -> tuple[Finding, ...]:
    return findings(start=start, **checks, responsiveness=start, disk=disk, restarts=start)


@pytest.mark.parametrize(
    ("before", "after", "state", "why"),
    [
        (told(a=True, b=True), told(a=True, b=True), "safe", ""),
        (told(a=True, b=True), told(a=True, b=False), "unsafe", "b: b said so"),
        (told(a=True, b=False), told(a=True), "safe", "not judged: b"),
        (told(a=True, b=False), told(a=False), "unsafe", "a: a said so"),
        (told(a=False), (), "unknown", "its tests fail on a copy as it is: a: a said so"),
        (told(), told(), "safe", ""),
        (told(), findings(start=False), "unsafe", "start: start said so"),
        (findings(start=False), (), "unknown", "its tests fail on a copy as it is: start: "),
        (told(a=True), findings(start=False), "unsafe", "start: start said so"),
        (told(a=True), told(a=True, disk=False), "safe", ""),
    ],
)
def test_only_what_worked_before_the_migrations_is_held_against_them(
    before: tuple[Finding, ...], after: tuple[Finding, ...], state: str, why: str
) -> None:
    verdict = rehearse.judge(before, after)
    assert verdict.state == state
    assert verdict.why.startswith(why) if why else not verdict.why


NAMES = st.dictionaries(st.sampled_from("abcdef"), st.booleans())


@given(NAMES, NAMES)
def test_a_verdict_is_never_better_than_what_was_found(
    before: dict[str, bool], after: dict[str, bool]
) -> None:
    verdict = rehearse.judge(told(**before), told(**after))
    if verdict.state == "safe":
        assert all(after.get(name, True) for name, good in before.items() if good)
        assert not before or any(before.values())


def release(number: int, reversible: str = "", heads: tuple[str, ...] = ("1",)) -> Release:
    at = f"2026-01-01T00:00:{number:02d}+00:00"
    return Release(
        *(f"r{number}", "a" * 40, "main", f"shop:r{number}", at),
        state="good",
        live_at=at,
        heads=heads,
        reversible=reversible,
    )


def data(known: list[Release], now: Release, target: Release) -> str:
    """Return what the plan of a rollback says of the data."""
    lines = live.rollback_plan(known, now, target, ("1",), "its containers are kept")
    return lines[-1].removeprefix("data      is kept as it is").removeprefix("; the rehearsal of ")


def test_a_plan_says_what_the_rehearsal_said() -> None:
    one, two, three = release(1), release(2, "safe", ("2",)), release(3, "unsafe", ("3",))
    after = release(4, heads=("2",))
    assert data([one, two], two, one) == "r2 said it is safe"
    assert data([one, two, after], after, one) == "r2 said it is safe"
    assert data([one, two, after], after, two) == ""
    assert data([one, two, three], three, two) == "r3 said it is not safe"
    assert data([one, two, three], three, one) == "r3 said it is not safe"
    assert data([one, two, three], two, three) == ""


def test_a_plan_promises_nothing_that_was_not_tried() -> None:
    one, two, three = release(1), release(2, "safe", ("2",)), release(3, "safe", ("3",))
    assert data([one, two, three], three, one) == ""
    unknown = release(3, heads=("3",))
    assert data([one, two, unknown], unknown, one) == ""
    failed = replace(release(2, "unsafe", ("2",)), state="failed", live_at="")
    later = release(3, heads=("2",))
    assert data([one, failed, later], later, one) == "r2 said it is not safe"


def test_a_release_remembers_and_one_of_yesterday_knows_nothing() -> None:
    found = releases.parse(
        '{"id": "r", "sha": "", "ref": "", "tag": "", "created": "", "state": "good"}'
    )
    assert found
    assert found.reversible == ""


@pytest.mark.parametrize(
    ("fact", "line"),
    [
        (
            {"state": "safe", "why": "", "seconds": 1.23},
            "safe to roll back (migrated a copy in 1.2 s)",
        ),
        (
            {"state": "safe", "why": "not judged: mail", "seconds": 1.0},
            "safe to roll back, not judged: mail (migrated a copy in 1.0 s)",
        ),
        (
            {"state": "unsafe", "why": "a: no", "seconds": 2.0},
            "not safe to roll back: a: no (migrated a copy in 2.0 s)",
        ),
        (
            {"state": "unknown", "why": "no\n  copy", "seconds": None},
            "it is unknown whether it is safe to roll back: no copy",
        ),
        (
            {"state": "skipped", "why": "no migration is pending"},
            "skipped, no migration is pending",
        ),
    ],
)
def test_a_report_says_whether_one_can_go_back(fact: dict[str, Any], line: str) -> None:
    assert text.rehearsal({"rehearsal": fact}) == line


def test_what_the_pipeline_tells_is_read_there_and_no_log_is_written_to() -> None:
    volumes = [
        "${DEPLOY_ROOT:-/opt/shop}/public:/app/facts:ro",
        "${DEPLOY_ROOT:-/opt/shop}/logs/app:/app/logs",
    ]
    data = {"services": {"web-r1": {"image": "x", "volumes": volumes}}}
    found = yaml.safe_load(render.apart(data, {"web-r1": "sha256:1"}, PLACE))
    facts = {"type": "bind", "source": "${DEPLOY_ROOT:-/opt/shop}/public", "target": "/app/facts"}
    assert found["services"]["web-r1"]["volumes"] == [
        {**facts, "read_only": True},
        {"type": "volume", "target": "/app/logs"},
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {"privileged": True},
        {"devices": ["/dev/sda:/dev/sda"]},
        {"device_cgroup_rules": ["b *:* rmw"]},
        {"cap_add": ["SYS_ADMIN", "CAP_SYS_PTRACE", "ALL", "${X:-SYS_ADMIN}"]},
        {"security_opt": ["seccomp=unconfined", "apparmor:unconfined", "${X:-seccomp=unconfined}"]},
        {"userns_mode": "host", "pid": "host", "ipc": "host", "uts": "host", "cgroup": "host"},
        {"cgroup_parent": "/", "runtime": "other", "gpus": "all", "use_api_socket": True},
        {"credential_spec": {"file": "x.json"}, "extends": {"file": "/x.yml", "service": "web"}},
        {"post_start": [{"command": "x", "privileged": True}], "provider": {"type": "x"}},
        {"deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"]}]}}}},
        {
            "logging": {"driver": "syslog"},
            "extra_hosts": ["a:host-gateway"],
            "network_mode": "host",
        },
    ],
)
def test_a_right_on_the_host_is_not_had_there(asked: dict[str, Any]) -> None:
    assert alone(**asked) == {}


def test_what_confines_a_service_confines_it_there_too() -> None:
    confining = {
        "cap_drop": ["ALL"],
        "cap_add": ["NET_BIND_SERVICE", "CAP_CHOWN"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "user": "postgres",
        "pids_limit": 256,
        "deploy": {"resources": {"limits": {"memory": "1g"}}},
    }
    assert alone(**confining) == confining


@pytest.mark.parametrize(
    "mount",
    [
        *("/:/a", "/etc/passwd:/a:ro", "/etc:/a:ro", "~/.ssh:/a:ro", "../../env.d:/a:ro"),
        *("${X:-/}:/a:ro", "$X:/a:ro", "./$X/file.txt:/a:ro", "./../../../.env.d:/a"),
        *("${DEPLOY_ROOT}/backups:/a:ro", "${DEPLOY_ROOT}/public/../.env:/a:ro"),
        *("${DEPLOY_ROOT:-/opt}/logs/app/file.log:/a:ro", "${DEPLOY_ROOT}/public.old:/a:ro"),
        {"type": "${X:-bind}", "source": "/", "target": "/a"},
        {"type": "bind", "source": "/etc", "target": "/a", "read_only": True},
        {"type": "volume", "source": "${X:-/}", "target": "/a"},
        {"type": "npipe", "source": "./x", "target": "/a", "read_only": True},
    ],
)
def test_nothing_else_on_the_host_is_seen_from_there(mount: Any) -> None:
    assert alone(volumes=[mount]) == {"volumes": [{"type": "volume", "target": "/a"}]}


def test_files_of_the_host_are_not_given_to_what_stands_apart() -> None:
    found = alone(
        secrets=["own", {"source": "others", "target": "x"}],
        configs=["above", "told"],
        env_file=["/r/env", "/etc/environment", {"path": "../env"}, {"path": "own.env"}],
    )
    assert found["secrets"] == ["own"]
    assert found["configs"] == ["told"]
    assert found["env_file"] == ["/r/env", {"path": "own.env"}]


def test_what_it_reads_of_the_commit_is_known() -> None:
    text = render.apart(yaml.safe_load(RENDERED), IMAGES, PLACE)
    assert render.own_files(text) == ("./postgresql.conf", "./key")


@pytest.mark.parametrize(
    ("fact", "line"),
    [
        ({"pending": ["1", "2"]}, "1, 2"),
        ({"pending": []}, "none"),
        ({"pending": None}, "it is not known which"),
        ({}, "it is not known which"),
        (None, "it is not known which"),
    ],
)
def test_the_migrations_that_wait_are_named(fact: dict[str, Any] | None, line: str) -> None:
    assert text.pending({"rehearsal": fact}) == line
