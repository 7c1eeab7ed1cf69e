"""Commands for the Docker engine, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.command import Command, command, script
from deploy.outcome import DeployFailed

PROJECT_LABEL = "deploy.project"
RELEASE_LABEL = "deploy.release"
SERVICE_LABEL = "deploy.service"
LIVE_NAME_LABEL = "deploy.live-name"
# Until now to the nanosecond: `--until 0s` is cut to the second, and leaves out what just happened.
ENDINGS = """
docker events --since "$1" --until "$(date +%s.%N)" --filter "$2" \
  --filter event=die --filter event=oom --format '{{.Action}} {{.Actor.Attributes.exitCode}}'
"""
REMOVE_ALL = """
filters=()
for filter in "$@"; do filters+=(--filter "$filter"); done
docker ps --all --quiet "${filters[@]}" | xargs -r docker rm --force --volumes
"""
# By the start of a compose project's name; images too, which are named after it.
REMOVE_PROJECT = """
mine() { awk -v p="$1" 'index($2, p) == 1 {print $1}'; }
label='{{.Label "com.docker.compose.project"}}'
docker ps --all --format "{{.ID}} $label" | mine "$1" | xargs -r docker rm --force --volumes
docker network ls --format "{{.ID}} $label" | mine "$1" | xargs -r docker network rm
docker volume ls --format "{{.Name}} $label" | mine "$1" | xargs -r docker volume rm
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Repository}}' | mine "$1" |
  xargs -r docker image rm --force
"""
LAYERS = "{{json .RootFS.Layers}}"
ALL_LAYERS = """
docker image ls --quiet --no-trunc | sort -u | xargs -r docker image inspect --format "$1" || true
"""
RESTART_LABEL = "deploy.restart"

# Only what is needed: the whole answer holds the container's environment, secrets included.
FIELDS = (
    '{"id":{{json .ID}},"name":{{json .Name}},"image":{{json .Image}},'
    '"status":{{json .State.Status}},"exit_code":{{json .State.ExitCode}},'
    '"oom_killed":{{json .State.OOMKilled}},"restarts":{{json .RestartCount}},'
    '"health":{{if .State.Health}}{{json .State.Health.Status}}{{else}}""{{end}},'
    '"labels":{{json .Config.Labels}},"networks":{{json .NetworkSettings.Networks}}}'
)
INSPECT_ALL = """
ids=$(docker ps --all --quiet --no-trunc --filter "label=$1")
if [ -n "$ids" ]; then docker inspect --type container --format "$2" $ids; fi
"""
INSPECT_SERVICE = """
ids=$(
  for owner in com.docker.compose deploy; do
    docker ps --all --quiet --no-trunc \
      --filter "label=$owner.project=$1" --filter "label=$owner.service=$2"
  done | sort -u
)
if [ -n "$ids" ]; then docker inspect --type container --format "$3" $ids; fi
"""
# What is to run comes back with the engine, what was stopped does not. `unless-stopped` would
# say both, but after an engine that was killed all of that counts as stopped, and stays down.
STOP = 'docker update --restart no -- "$@" >/dev/null; docker stop -- "$@"'
START = 'docker update --restart "$2" -- "$1" >/dev/null; docker start -- "$1"'


@dataclass(frozen=True)
class Container:
    """What the engine says of one container."""

    id: str
    name: str
    image_id: str
    status: str
    health: str = ""
    exit_code: int = 0
    oom_killed: bool = False
    restarts: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Tell whether it runs, and is not on its way down or round again."""
        return self.status == "running"

    @property
    def release(self) -> str:
        """Return the release it belongs to, empty when it is of none."""
        return self.labels.get(RELEASE_LABEL, "")

    @property
    def service(self) -> str:
        """Return the service it was made from."""
        return self.labels.get(SERVICE_LABEL, "")


def server_version() -> Command:
    """Ask the engine for its version: fails where none runs."""
    return command("docker", "version", "--format", "{{.Server.Version}}", deadline=20)


def inspect_project(project: str) -> Command:
    """Ask for every container of a project, stopped ones too."""
    return script(INSPECT_ALL, f"{PROJECT_LABEL}={project}", FIELDS)


def inspect_service(project: str, service: str) -> Command:
    """Ask for every container of one service, of whatever release."""
    return script(INSPECT_SERVICE, project, service, FIELDS)


def inspect_container(name: str) -> Command:
    """Ask for one container."""
    return command("docker", "inspect", "--type", "container", "--format", FIELDS, "--", name)


def parse_containers(text: str) -> tuple[Container, ...]:
    """Given what `docker inspect` said in our fields, a line each, return the containers.

    Raises:
        DeployFailed: A line makes no sense.
    """
    try:
        return tuple(_container(json.loads(line)) for line in text.splitlines() if line.strip())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeployFailed(
            "The engine's answer about its containers makes no sense", why=repr(error)
        ) from error


def _container(item: Mapping[str, Any]) -> Container:
    networks = item["networks"] or {}
    return Container(
        id=str(item["id"]),
        name=item["name"].removeprefix("/"),
        image_id=str(item["image"]),
        status=str(item["status"]),
        health=str(item["health"]),
        exit_code=int(item["exit_code"]),
        oom_killed=bool(item["oom_killed"]),
        restarts=int(item["restarts"]),
        labels=item["labels"] or {},
        addresses={name: value["IPAddress"] for name, value in networks.items()},
    )


def layers_of(image: str) -> Command:
    """Ask for the layers of an image, by what they hold."""
    return command("docker", "image", "inspect", "--format", LAYERS, "--", image)


def all_layers() -> Command:
    """Ask for the layers of every image."""
    return script(ALL_LAYERS, LAYERS)


def parse_layers(text: str) -> tuple[tuple[str, ...], ...]:
    """Given lines of layers, return those of each image."""
    found = []
    for line in text.splitlines():
        try:
            layers = json.loads(line)
        except ValueError:
            continue
        if isinstance(layers, list):
            found.append(tuple(str(item) for item in layers))
    return tuple(found)


def save_thin(python: str, name: str, layers: Sequence[str]) -> Command:
    """Write an image to standard output without some layers, on this machine."""
    library = str(Path(__file__).resolve().parents[2])
    words = ("env", f"PYTHONPATH={library}", python, "-s", "-m", "deploy.docker.thin", name)
    return command(*words, *layers, deadline=1800)


def image_id(reference: str) -> Command:
    """Ask for the id of an image: fails where there is none."""
    return command("docker", "image", "inspect", "--format", "{{.Id}}", "--", reference)


def tag_image(reference: str, name: str) -> Command:
    """Give an image another name."""
    return command("docker", "tag", reference, name)


def untag_image(name: str) -> Command:
    """Take a name off an image."""
    return command("docker", "image", "rm", "--no-prune", "--", name)


def build_image(
    folder: str, dockerfile: str, name: str, arguments: Mapping[str, str], deadline: float
) -> Command:
    """Build the image of a release from an exported folder, labelled as its project's."""
    given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    given += ["--label", f"{PROJECT_LABEL}={name.partition(':')[0]}"]
    path = f"{folder}/{dockerfile}"
    return command(
        "docker", "build", "--file", path, "--tag", name, *given, "--", folder, deadline=deadline
    )


def save_image(name: str) -> Command:
    """Write an image to standard output."""
    return command("docker", "save", "--", name, deadline=1800)


def load_image() -> Command:
    """Read an image from standard input."""
    return command("docker", "load", "--quiet", stdin=b"", deadline=1800)


def stop(names: Sequence[str]) -> Command:
    """Stop containers all at once, each with the grace that it was made with."""
    return script(STOP, *names, deadline=600)


def start(container: Container) -> Command:
    """Start a stopped container, which from now on comes back with the engine."""
    return script(START, container.id, container.labels.get(RESTART_LABEL, "always"))


def wake(name: str) -> Command:
    """Start a container as it was made."""
    return command("docker", "start", "--", name)


def remove(name: str) -> Command:
    """Remove a container, running or not; never its volumes."""
    return command("docker", "rm", "--force", "--", name)


def remove_all(project: str) -> Command:
    """Remove every container of a compose project, with the volumes that have no name."""
    return script(REMOVE_ALL, f"label=com.docker.compose.project={project}")


def remove_project(prefix: str) -> Command:
    """Remove all there is of compose projects whose names begin so: volumes and images as well."""
    return script(REMOVE_PROJECT, prefix, deadline=120)


def remove_service(project: str, service: str) -> Command:
    """Remove the containers of one service, with the volumes that have no name."""
    owner = "label=com.docker.compose"
    return script(REMOVE_ALL, f"{owner}.project={project}", f"{owner}.service={service}")


def remove_one_offs(project: str) -> Command:
    """Remove what runs once and ends, such as migrations; never a service."""
    of_it = f"label=com.docker.compose.project={project}"
    return script(REMOVE_ALL, of_it, "label=com.docker.compose.oneoff=True")


def rename(name: str, new: str) -> Command:
    """Give a container another name."""
    return command("docker", "rename", name, new)


def logs(name: str, lines: int) -> Command:
    """Ask for the last lines a container wrote."""
    return command("docker", "logs", "--tail", str(lines), "--", name)


def endings(name: str, seconds: float) -> Command:
    """Ask how often a container has ended in the last seconds, and how.

    What was started again no longer shows it: its state is that of its new life.
    """
    return script(ENDINGS, f"{seconds:.0f}s", f"container={name}")


def parse_endings(text: str) -> tuple[tuple[str, ...], bool]:
    """Given the events, return the exit codes, and whether memory ran out."""
    words = [line.split() for line in text.splitlines()]
    codes = tuple(found[1] for found in words if len(found) > 1 and found[0] == "die")
    return codes, any(found[:1] == ["oom"] for found in words)
