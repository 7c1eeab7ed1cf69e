"""From facts to a plan: what is installed where, and what stops it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox.machine.facts import Engine, Facts, Rights, parse_info, parse_refusal
from sandbox.machine.plan import Plan, describe, plan_for, problems

COMPLETE = Facts(
    client=True,
    daemon=True,
    engine=Engine.UP,
    elsewhere=False,
    compose=True,
    buildx=True,
    ssh=True,
    ensurepip=True,
    environment=True,
    images=True,
    apt=True,
    rights=Rights.ROOT,
)
PYTHON = (3, 11)


def test_a_complete_machine_needs_nothing() -> None:
    assert plan_for(COMPLETE, PYTHON).empty


def test_an_engine_that_answers_is_enough_without_a_daemon_of_our_own() -> None:
    assert plan_for(replace(COMPLETE, daemon=False), PYTHON).empty


@pytest.mark.parametrize(
    ("facts", "plan"),
    [
        (
            replace(COMPLETE, client=False, daemon=False, engine=Engine.DOWN),
            Plan(packages=("docker.io", "docker-cli"), start_engine=True),
        ),
        (
            replace(COMPLETE, daemon=False, engine=Engine.DOWN),
            Plan(packages=("docker.io",), start_engine=True),
        ),
        (replace(COMPLETE, engine=Engine.DOWN), Plan(start_engine=True)),
        (replace(COMPLETE, engine=Engine.DOWN, elsewhere=True), Plan()),
        (replace(COMPLETE, compose=False), Plan(plugins=("compose",))),
        (replace(COMPLETE, compose=False, buildx=False), Plan(plugins=("compose", "buildx"))),
        (replace(COMPLETE, ssh=False), Plan(packages=("openssh-client",))),
        (replace(COMPLETE, tools=("age", "zstd")), Plan(packages=("age", "zstd"))),
        (replace(COMPLETE, ensurepip=False), Plan()),
        (
            replace(COMPLETE, ensurepip=False, environment=False),
            Plan(packages=("python3.11-venv",), environment=True),
        ),
        (replace(COMPLETE, images=False), Plan(images=True)),
    ],
)
def test_only_what_is_missing_is_planned(facts: Facts, plan: Plan) -> None:
    assert plan_for(facts, PYTHON) == plan


def test_what_would_be_installed_is_said_by_name() -> None:
    plan = Plan(
        packages=("docker.io",),
        plugins=("compose",),
        start_engine=True,
        environment=True,
        images=True,
    )
    text = "\n".join(describe(plan))
    for word in ("docker.io", "compose", "engine", ".venv", "debootstrap"):
        assert word in text
    assert describe(Plan()) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(COMPLETE, rights=Rights.NONE), []),
        (replace(COMPLETE, rights=Rights.NONE, environment=False, images=False), []),
        (replace(COMPLETE, rights=Rights.NONE, ssh=False), ["openssh-client", "not root"]),
        (replace(COMPLETE, rights=Rights.NONE, engine=Engine.DOWN), ["cannot start it"]),
        (replace(COMPLETE, rights=Rights.SUDO, ssh=False), []),
        (replace(COMPLETE, engine=Engine.DENIED), ["may not use it"]),
        (replace(COMPLETE, engine=Engine.DOWN, elsewhere=True), ["DOCKER_HOST"]),
        (replace(COMPLETE, apt=False, ssh=False), ["no apt-get"]),
        (
            replace(COMPLETE, apt=False, ssh=False, rights=Rights.NONE),
            ["not root", "no apt-get"],
        ),
    ],
)
def test_every_obstacle_is_named_with_its_remedy(facts: Facts, words: list[str]) -> None:
    found = problems(facts, plan_for(facts, PYTHON))
    text = "\n".join(cause for cause, _ in found)
    assert len(found) == 0 if not words else all(word in text for word in words)
    assert all(remedy for _, remedy in found)


PLUGINS = '[{"Name":"buildx"},{"Name":"compose","Err":"exec format error"}]'


@pytest.mark.parametrize(
    ("out", "up", "plugins"),
    [
        (f"{PLUGINS}\n20.10.24\n", True, {"buildx"}),
        (f"{PLUGINS}\n\n", False, {"buildx"}),
        ("null\n\n", False, set()),
        ("[]\n", False, set()),
        ("", False, set()),
        ("garbage\n20.10\n", True, set()),
    ],
)
def test_docker_info_is_understood(out: str, plugins: set[str], *, up: bool) -> None:
    assert parse_info(out) == (up, frozenset(plugins))


@pytest.mark.parametrize(
    ("err", "engine"),
    [
        ("Got permission denied while trying to connect to the daemon socket", Engine.DENIED),
        ("dial unix /var/run/docker.sock: connect: permission denied", Engine.DENIED),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", Engine.DOWN),
        ("docker: not found", Engine.DOWN),
    ],
)
def test_an_engine_that_refuses_is_not_one_that_is_down(err: str, engine: Engine) -> None:
    assert parse_refusal(err) is engine
