"""The programs of a machine, its engine, and the room on its disks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploy.checks.finding import Finding, good, stop
from deploy.command import Command, script

# What the host's part of any run is made of.
TOOLS = ("docker", "git", "curl", "awk", "gzip", "tar", "flock", "setsid")
# All in one, side by side: a rollback waits for it. By its exit code `docker info` does not
# always tell whether there is an engine.
LOOK_AROUND = """
folder=$1; python=$2; shift 2
for tool in "$@"; do command -v -- "$tool" >/dev/null || echo "missing $tool"; done
"$python" -c 'import sys; v = sys.version_info
print("python", "%d.%d.%d" % v[:3] if v >= (3, 11) else "old")' 2>/dev/null || echo "python old"
while [ ! -e "$folder" ]; do folder=$(dirname -- "$folder"); done
data=/
if command -v docker >/dev/null; then
  engine=$(mktemp); trap 'rm -f -- "$engine"' EXIT
  docker info --format 'is {{.ServerVersion}} at {{.DockerRootDir}}' >"$engine" 2>&1 &
  asked=$!
  echo "compose $(docker compose version --short 2>/dev/null || echo none)"
  wait "$asked" || true
  if found=$(grep -E '^is [^ ]+ at /' "$engine"); then
    data=${found#* at }; found=${found#is }
    echo "engine ${found%% at *}"
  else
    echo "down $(grep -v '^is ' "$engine" | tail -n 1)"
  fi
fi
df -Pm -- "$folder" "$data" 2>/dev/null | awk 'NR > 1 {print "free", $4, $6}' || true
"""
INSTALL = "apt-get install"
START = "docker version there says more; when it is not started: systemctl start docker"
MEMBER = "as root there: usermod -aG docker USER, for the user that connects; then again"
OLD = "install a newer one, and see that `python3` starts it"
ROOM = "deploy.minimum_free_mb; see: df -h; docker system df"


def look(folder: str, python: str, tools: Sequence[str]) -> Command:
    """Return the command that looks around on a machine.

    Args:
        folder: Where much will be written.
        python: The interpreter that is to be used there.
        tools: The programs that it takes.
    """
    return script(LOOK_AROUND, folder, python, *tools)


def programs(seen: str, name: str) -> tuple[Finding, ...]:
    """Given what a look around a machine said, return how its programs are.

    Args:
        seen: Its lines.
        name: The machine.
    """
    lines = [line.partition(" ") for line in seen.splitlines()]
    facts = {key: value for key, _, value in lines if key != "free"}
    tools = [value for key, _, value in lines if key == "missing"]
    told = ", ".join(tools)
    found = [
        stop("tools", f"{name} has no {told}", INSTALL) if tools else good("tools", "all are there")
    ]
    return (*found, *_versions(facts, name))


def _versions(facts: Mapping[str, str], name: str) -> list[Finding]:
    found = []
    if facts.get("python") == "old":
        found.append(stop("python", f"{name} has a Python older than 3.11", OLD))
    elif "python" in facts:
        found.append(good("python", facts["python"]))
    if "down" in facts:
        why = facts["down"]
        cure = MEMBER if "permission denied" in why else START
        found.append(stop("engine", f"no Docker engine answers on {name}: {why}", cure))
    elif "engine" in facts:
        found.append(good("engine", f"Docker {facts['engine']}"))
    compose = facts.get("compose", "")
    if compose.lstrip("v").startswith(("none", "1.")):
        found.append(stop("compose", f"{name} has no Docker Compose v2", f"{INSTALL} it"))
    elif compose:
        found.append(good("compose", f"Compose {compose}"))
    return found


def disks(seen: str, name: str, wanted: int) -> tuple[Finding, ...]:
    """Given what a look around a machine said, return how much room there is.

    Args:
        seen: Its lines.
        name: The machine.
        wanted: Megabytes that must be free.
    """
    free: dict[str, int] = {}
    for line in seen.splitlines():
        words = line.split(maxsplit=2)
        if len(words) == 3 and words[0] == "free" and words[1].lstrip("-").isdigit():
            free[words[2]] = int(words[1])
    return tuple(
        stop("disk", f"{name} has {count} MB free on {mount}, {wanted} MB may be needed", ROOM)
        if count < wanted
        else good("disk", f"{count} MB are free on {mount}, {wanted} MB may be needed")
        for mount, count in free.items()
    )
