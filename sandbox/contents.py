"""What stands in a box: a repository to deploy from, or nothing at all."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from deploy.outcome import Invalid
from sandbox.box import Box
from sandbox.machine.facts import BASE_IMAGES
from sandbox.shell import ask, must, stage

REPOSITORY = "/srv/git/server-agent-vnext.git"
CLONE = "/opt/server-agent-vnext/repo"
NEXT = "inv sandbox.up brings the box up; then try again"

PREPARE = """
set -eu
[ -d "$1" ] || git init --quiet --bare --initial-branch=main "$1"
git -C "$1" config receive.shallowUpdate true
"""
CLONE_OR_FETCH = """
set -eu
if [ -d "$2" ]; then
    git -C "$2" fetch --quiet --prune origin '+refs/heads/*:refs/heads/*'
else
    mkdir -p "$(dirname "$2")"
    git clone --quiet --bare "file://$1" "$2"
fi
"""
# The build cache stays: it holds nothing that a deployment can see.
EMPTY = """
set -eu
docker ps --all --quiet | xargs -r docker rm --force --volumes >/dev/null
docker volume ls --quiet | xargs -r docker volume rm --force >/dev/null
docker network ls --filter type=custom --quiet | xargs -r docker network rm >/dev/null
docker image ls --format '{{.Repository}}:{{.Tag}}' | sed '/<none>/d' | while read -r name; do
    case " $* " in *" $name "*) ;; *) docker image rm --force "$name" >/dev/null ;; esac
done
docker image prune --force >/dev/null
rm -rf /opt/server-agent-vnext /srv/git
"""


def script(box: Box, text: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a constant text in the box, on these arguments."""
    return box.ssh(shlex.join(("bash", "-o", "pipefail", "-c", text, "sandbox", *arguments)))


def seed(box: Box, checkout: Path) -> None:
    """Give the box the checkout's commit to deploy from, the way `setup` would.

    Args:
        box: A running box.
        checkout: A git working copy; its HEAD becomes the box's branch main.

    Raises:
        Invalid: When the commit does not get there.
    """
    with stage(f"{checkout.name}: HEAD into the box"):
        must(script(box, PREPARE, REPOSITORY), deadline=30, next_step=NEXT)
        push = ask(
            (
                *("git", "-C", str(checkout), "push", "--quiet", "--force"),
                *(f"ssh://vps{REPOSITORY}", "HEAD:refs/heads/main"),
            ),
            deadline=120,
            env=push_environment(box, os.environ),
        )
        if not push.ok:
            raise Invalid(
                "The checkout's commit could not be pushed into the box",
                where=str(checkout),
                why=push.tail(),
                next_step="git -C CHECKOUT status; at least one commit is needed",
            )
        must(script(box, CLONE_OR_FETCH, REPOSITORY, CLONE), deadline=60, next_step=NEXT)


def push_environment(box: Box, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which git talks to this box, whatever runs around it.

    Inside a git hook GIT_DIR and its like name another repository.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_SSH_COMMAND": f"ssh -F {shlex.quote(str(box.ssh_config))}"}


def reset(box: Box) -> None:
    """Make the box like new without making it anew.

    Everything deployed goes: containers, volumes, networks, images but the base ones,
    /opt/server-agent-vnext and /srv/git.

    Args:
        box: A running box.

    Raises:
        Invalid: When something could not be removed.
    """
    with stage(f"box {box.container}: emptied"):
        must(script(box, EMPTY, *BASE_IMAGES), deadline=120, next_step=NEXT)
