"""What the tests of a commit may ask the engine for, before anybody has approved it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy.docker import confined, render
from deploy.outcome import Invalid

ROOT = Path(__file__).parents[3]
PLAIN = """
name: anything
version: "3.9"
x-common: &common
  init: true
  environment: &told {PGHOST: db, EMPTY: }
  depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}
services:
  test:
    <<: *common
    image: shop-test
    build: {context: ./, dockerfile: docker/Dockerfile.test, target: test, args: {A: "${A:-1}"}}
    command: [sh, -c, "pytest $$ARGS"]
    env_file: [tests/test.env, {path: ./more.env, required: false}]
    volumes: ["cache:/cache:rw", /scratch, {type: volume, source: cache, target: /c2},
      {type: tmpfs, target: /memory, tmpfs: {size: 1000}}]
    security_opt: ["no-new-privileges:true"]
    cap_drop: [ALL]
    cap_add: [CHOWN]
  again:
    image: shop-test
    environment: {<<: *told, MORE: 1}
    networks: [inner]
  db:
    image: postgres:${PG:-15}
    tmpfs: /var/lib/postgresql/data
    user: postgres
    environment: [POSTGRES_PASSWORD=test]
    logging: {driver: none}
    networks: {inner: {aliases: [database]}, outer: }
    x-note: for people
  cache: {image: redis, healthcheck: {test: [CMD, redis-cli, ping]}, shm_size: 1g}
volumes:
  cache: {driver: local}
  other:
networks:
  inner: {internal: true}
  outer: {driver: bridge}
"""


def ran(text: str) -> dict[str, Any]:
    """Return the file that the tests run from."""
    data = render.parse(text, "test.yml")
    found: dict[str, Any] = yaml.safe_load(confined.rendered(data, "test.yml"))
    return found


def test_an_ordinary_file_stays_as_it_is() -> None:
    found = ran(PLAIN)
    data = yaml.safe_load(PLAIN)
    assert set(found) == {"services", "volumes", "networks"}
    assert found["services"]["db"] == data["services"]["db"]
    assert found["volumes"] == data["volumes"]
    assert found["networks"] == data["networks"]


def test_what_is_built_takes_no_image_s_name() -> None:
    services = ran(PLAIN)["services"]
    build = yaml.safe_load(PLAIN)["services"]["test"]["build"]
    assert services["test"]["build"] == services["again"]["build"] == build
    assert not any("image" in services[name] for name in ("test", "again"))
    assert services["cache"]["image"] == "redis"


def test_what_it_reads_of_the_commit_is_known() -> None:
    dockerfile = ".//docker/Dockerfile.test"
    expected = ("./", dockerfile, "tests/test.env", "./more.env")
    assert confined.paths(yaml.safe_load(PLAIN)) == expected
    assert confined.paths({"services": {"a": {"build": "sub"}}}) == ("sub", "sub/Dockerfile")


def test_our_own_file_runs_as_it_is() -> None:
    text = (ROOT / "docker-compose-test.yml").read_text()
    assert ran(text) == yaml.safe_load(text)


BIND = ["/:/host", ".:/app", "../x:/x", "~/.ssh:/x:ro", "${X:-/}:/host", "$X:/host", "./a:/a"]
MOUNTS = [
    *BIND,
    *("C:/etc:/host", "a$X:/a", "", "relative", 5, ["/:/host"], None),
    {"type": "bind", "source": "/", "target": "/host"},
    {"type": "${X:-bind}", "source": "/", "target": "/host"},
    {"source": "/", "target": "/host"},
    {"type": "volume", "source": "/", "target": "/host"},
    {"type": "volume", "source": "${X}", "target": "/host"},
    {"type": "npipe", "source": "x", "target": "/host"},
    {"type": "cluster", "source": "x", "target": "/host"},
    {"type": ["bind"], "source": "x", "target": "/host"},
]


@pytest.mark.parametrize("mount", MOUNTS, ids=str)
def test_a_mount_that_is_no_volume_of_its_own_is_refused(mount: Any) -> None:
    with pytest.raises(Invalid, match="service test: volumes") as caught:
        ran(yaml.safe_dump({"services": {"test": {"image": "x", "volumes": ["data:/d", mount]}}}))
    assert caught.value.code == 7
    assert caught.value.where == "test.yml"
    assert "pushed commit" in caught.value.why
    assert "take it out" in caught.value.next_step


SERVICE = [
    ("privileged", True),
    ("privileged", False),
    ("network_mode", "host"),
    ("pid", "host"),
    ("ipc", "host"),
    ("uts", "host"),
    ("userns_mode", "host"),
    ("cgroup", "host"),
    ("cgroup_parent", "/"),
    ("devices", ["/dev/sda"]),
    ("device_cgroup_rules", ["a *:* rwm"]),
    ("gpus", "all"),
    ("runtime", "other"),
    ("volumes_from", ["container:shop_db"]),
    ("external_links", ["shop_db"]),
    ("extra_hosts", ["a:host-gateway"]),
    ("ports", ["80:80"]),
    ("extends", {"file": "/x.yml", "service": "a"}),
    ("secrets", ["a"]),
    ("configs", ["a"]),
    ("credential_spec", {"file": "x"}),
    ("annotations", {"a": "b"}),
    ("deploy", {"replicas": 2}),
    ("provider", {"type": "x"}),
    ("use_api_socket", True),
    ("post_start", [{"command": "x", "privileged": True}]),
    ("label_file", "/etc/passwd"),
    ("storage_opt", {"size": "1g"}),
    ("unheard_of", 1),
    (True, 1),
    ("<<", 1),
    ("cap_add", ["SYS_ADMIN"]),
    ("cap_add", "ALL"),
    ("cap_add", ["CHOWN", "${X:-ALL}"]),
    ("security_opt", ["seccomp=unconfined"]),
    ("security_opt", ["no-new-privileges:false"]),
    ("security_opt", "apparmor:unconfined"),
    ("logging", {"driver": "syslog"}),
    ("logging", "x"),
    ("networks", {"default": {"driver_opts": {"a": "b"}}}),
    ("networks", {"default": "x"}),
    ("env_file", "/opt/shop/.env"),
    ("env_file", ["a.env", {"path": "../../env"}]),
    ("env_file", [{"path": ["/x"]}, {}]),
    ("image", ["x"]),
    ("build", "/"),
    ("build", ".."),
    ("build", "a/../../b"),
    ("build", "${X:-/}"),
    ("build", "~"),
    ("build", "https://localhost/x.git"),
    ("build", ""),
    ("build", None),
    ("build", ["."]),
    ("build", {"context": "/"}),
    ("build", {"context": ".", "dockerfile": "../../Dockerfile"}),
    ("build", {"context": ".", "dockerfile": "/etc/passwd"}),
    ("build", {"context": ".", "dockerfile": "${X}"}),
    ("build", {"additional_contexts": {"host": "/"}}),
    ("build", {"cache_to": ["type=local,dest=/x"]}),
    ("build", {"cache_from": ["type=local,src=/x"]}),
    ("build", {"secrets": ["a"]}),
    ("build", {"ssh": ["default"]}),
    ("build", {"network": "host"}),
    ("build", {"privileged": True}),
    ("build", {"entitlements": ["security.insecure"]}),
    ("build", {"extra_hosts": ["a:host-gateway"]}),
    ("build", {"tags": ["caddy:2"]}),
]


@pytest.mark.parametrize(("key", "value"), SERVICE, ids=str)
def test_a_service_that_reaches_beyond_its_container_is_refused(key: Any, value: Any) -> None:
    with pytest.raises(Invalid, match=re.escape(f"service test: {key}")):
        ran(yaml.safe_dump({"services": {"test": {key: value}}}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("include: [/etc/x.yml]", "include"),
        ("secrets: {a: {file: /etc/shadow}}", "secrets"),
        ("configs: {a: {file: /etc/shadow}}", "configs"),
        ("volumes: {a: {name: shop_data}}", "volumes a: name"),
        ("volumes: {a: {external: true}}", "volumes a: external"),
        ("volumes: {a: {driver: nfs}}", "volumes a: driver nfs"),
        ("volumes: {a: {driver: local, driver_opts: {o: bind, device: /}}}", "a: driver_opts"),
        ("volumes: [a]", "volumes"),
        ("volumes: {a: x}", "volumes a: x"),
        ("networks: {a: {external: true}}", "networks a: external"),
        ("networks: {default: {name: shop_network}}", "networks default: name"),
        ("networks: {a: {driver: host}}", "networks a: driver host"),
        ('networks: {a: {driver: "${X:-macvlan}"}}', "networks a: driver"),
        ("networks: {a: {driver_opts: {x: y}}}", "networks a: driver_opts"),
        ("networks: {a: {ipam: {config: [{subnet: 10.0.0.0/8}]}}}", "networks a: ipam"),
    ],
)
def test_a_file_that_shares_what_is_the_host_s_is_refused(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=re.escape(says)):
        ran(f"services: {{test: {{image: x}}}}\n{text}\n")


def test_all_that_is_too_much_is_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        ran("services: {a: {pid: host}, b: {volumes: ['/:/x'], ipc: host}}")
    assert "service a: pid; service b: volumes /:/x; service b: ipc" in caught.value.what


@pytest.mark.parametrize(
    "text",
    [
        "x-a: &a {pid: host}\nservices: {test: {<<: *a, image: x}}",
        "x-a: &a {image: x}\nx-b: &b {pid: host}\nservices: {test: {<<: [*a, *b]}}",
        "x-a: &a [/:/host]\nservices: {test: {image: x, volumes: *a}}",
    ],
)
def test_a_key_is_found_wherever_it_comes_from(text: str) -> None:
    with pytest.raises(Invalid, match=r"service test: (pid|volumes)"):
        ran(text)


@pytest.mark.parametrize(
    "text",
    [
        "services: {test: {image: x}}\n---\nservices: {test: {pid: host}}",
        "services: {test: {image: x, pid: !reset null}}",
    ],
)
def test_what_only_compose_understands_is_not_read(text: str) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        ran(text)


def test_where_readers_differ_compose_reads_what_was_looked_at() -> None:
    twice = "x-a: &a {pid: host}\nx-b: &b {image: x}\nservices: {test: {<<: *a, pid: x, <<: *b}}"
    with pytest.raises(Invalid):
        ran(twice)
    found = ran("services: {test: {image: x, volumes: ['/:/host'], volumes: ['data:/x']}}")
    assert found == {"services": {"test": {"image": "x", "volumes": ["data:/x"]}}}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "/", ".", "$X", "a", *BIND]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=5,
)
KEYS = st.sampled_from([*sorted(confined.PLAIN), *confined.JUDGES, "pid", "devices"]) | st.text()


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(st.sampled_from(["volumes", "x"]), VALUES))
def test_no_garbage_gets_through_or_gets_the_better_of_it(
    service: dict[str, Any], top: dict[str, Any]
) -> None:
    data = {**top, "services": {"test": service}}
    try:
        found = yaml.safe_load(confined.rendered(data, "test.yml"))["services"]["test"]
    except Invalid:
        return
    assert all(isinstance(path, str) for path in confined.paths(data))
    assert not {"pid", "devices"} & found.keys()
    assert not any(item in BIND for item in found.get("volumes") or ())
