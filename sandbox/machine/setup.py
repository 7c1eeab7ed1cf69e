"""The stages of `bootstrap`, in order."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploy.checks import packages
from deploy.outcome import Invalid
from sandbox import images
from sandbox.machine import apt, engine, environment
from sandbox.machine.alone import alone, state_folder
from sandbox.machine.facts import BASE_IMAGES, Engine, engine_state, gather
from sandbox.machine.plan import Plan, describe, plan_for, problems
from sandbox.shell import say, stage


def set_up(root: Path) -> None:
    """Give this machine what it lacks.

    Args:
        root: The project's folder.

    Raises:
        Invalid: When something stands in the way.
    """
    if plan_for(gather(root), sys.version_info[:2]).empty:
        return
    folder = state_folder()
    with alone("bootstrap"):
        # Whoever held the lock may have done all of it.
        facts = gather(root)
        plan = plan_for(facts, sys.version_info[:2])
        refuse(problems(facts, plan))
        for line in describe(plan):
            say(f"bootstrap: will {line}")
        carry_out(plan, root, folder)


def refuse(found: list[tuple[str, str]]) -> None:
    """Stop before anything was changed, naming every obstacle at once."""
    if found:
        raise Invalid(
            "; ".join(cause for cause, _ in found),
            next_step="; ".join(remedy for _, remedy in found),
        )


def carry_out(plan: Plan, root: Path, folder: Path) -> None:
    """Run the stages that the plan names."""
    if plan.packages:
        with stage(f"system packages: {', '.join(plan.packages)}"):
            apt.refresh()
            apt.install(plan.packages)
    if plan.plugins:
        with stage(f"Docker CLI plugins: {', '.join(plan.plugins)}"):
            add_plugins(plan.plugins)
    if plan.start_engine:
        with stage("Docker engine"):
            engine.start(folder / "dockerd.log")
    check_engine()
    if plan.environment:
        with stage(".venv from requirements/dev.txt"):
            environment.make(root)
    if plan.images:
        images.ensure(BASE_IMAGES)


def add_plugins(plugins: tuple[str, ...]) -> None:
    """Install CLI plugins from where this distribution has them."""
    names = [name for plugin in plugins for name in packages.PLUGINS[plugin]]
    offered = apt.candidates(names)
    found = [package for plugin in plugins if (package := packages.pick(plugin, offered))]
    if found:
        apt.install(found)
    rest = [plugin for plugin in plugins if packages.pick(plugin, offered) is None]
    if rest:
        apt.fetch_plugins(rest, plugin_folder())


def plugin_folder() -> Path:
    """Return the folder in which the Docker client looks for the user's plugins."""
    configured = os.environ.get("DOCKER_CONFIG")
    return (Path(configured) if configured else Path.home() / ".docker") / "cli-plugins"


def check_engine() -> None:
    """Make sure that the engine and both plugins answer before anything builds on them."""
    state, plugins = engine_state()
    if state is Engine.DENIED:
        raise Invalid(
            "The Docker engine runs, but this user may not use it",
            next_step='sudo usermod -aG docker "$USER", then log in again',
        )
    missing = [name for name in ("compose", "buildx") if name not in plugins]
    if state is Engine.DOWN or missing:
        raise Invalid(
            "Docker is not complete: " + (", ".join(missing) or "the engine does not answer"),
            next_step="docker info; docker compose version; docker buildx version",
        )
