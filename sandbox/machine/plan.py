"""From what a machine has to what it needs: pure, so that it can be read and tested."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.machine.facts import Engine, Facts, Rights

AS_ROOT = "run it as root, or let `sudo -n true` work, or install it yourself"


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order."""

    packages: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    start_engine: bool = False
    environment: bool = False
    images: bool = False

    @property
    def empty(self) -> bool:
        """Tell whether the machine has everything."""
        return self == Plan()


def plan_for(facts: Facts, python: tuple[int, int]) -> Plan:
    """Given the facts and Python's version, return what is to be done."""
    packages: list[str] = []
    engine_missing = facts.engine is Engine.DOWN and not facts.elsewhere
    if engine_missing and not facts.daemon:
        packages.append("docker.io")
    if not facts.client:
        packages.append("docker-cli")
    if not facts.ssh:
        packages.append("openssh-client")
    if not facts.environment and not facts.ensurepip:
        packages.append(f"python{python[0]}.{python[1]}-venv")
    packages += facts.tools
    plugins = [
        name for name, there in (("compose", facts.compose), ("buildx", facts.buildx)) if not there
    ]
    return Plan(
        packages=tuple(packages),
        plugins=tuple(plugins),
        start_engine=engine_missing,
        environment=not facts.environment,
        images=not facts.images,
    )


def describe(plan: Plan) -> list[str]:
    """Return the lines that say what is going to be done, before anything is."""
    lines = []
    if plan.packages:
        lines.append(f"install system packages: {', '.join(plan.packages)}")
    if plan.plugins:
        lines.append(f"install Docker CLI plugins: {', '.join(plan.plugins)}")
    if plan.start_engine:
        lines.append("start the Docker engine")
    if plan.environment:
        lines.append("make .venv from requirements/dev.txt")
    if plan.images:
        lines.append("fetch base images (where no registry answers: build them with debootstrap)")
    return lines


def problems(facts: Facts, plan: Plan) -> list[tuple[str, str]]:
    """Return what stands in the way, all at once, as pairs of cause and remedy."""
    found: list[tuple[str, str]] = []
    if facts.engine is Engine.DENIED:
        found.append(
            (
                "the Docker engine runs, but this user may not use it",
                'sudo usermod -aG docker "$USER", then log in again',
            )
        )
    if facts.engine is Engine.DOWN and facts.elsewhere:
        found.append(
            (
                "DOCKER_HOST or DOCKER_CONTEXT names an engine that does not answer",
                "unset it to use this machine's own engine, or start that one",
            )
        )
    if facts.rights is Rights.NONE and plan.packages:
        found.append((f"missing here: {', '.join(plan.packages)}; this user is not root", AS_ROOT))
    elif facts.rights is Rights.NONE and plan.start_engine:
        found.append(("the Docker engine does not run; this user cannot start it", AS_ROOT))
    if plan.packages and not facts.apt:
        found.append(
            (
                f"missing here: {', '.join(plan.packages)}; there is no apt-get",
                "install it by hand, or use Debian or Ubuntu",
            )
        )
    return found
