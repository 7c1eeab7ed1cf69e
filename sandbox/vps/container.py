"""The container that is the box: what it may do and how it is started."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.outcome import Invalid
from sandbox import images
from sandbox.shell import ask, must
from sandbox.vps.address import PORTS

BASE = "debian:trixie-slim"
FOLDER = Path(__file__).resolve().parent / "image"
LABEL = "server-agent-vps"
NEXT = "docker info; then inv sandbox.down and try again"

# In the order of their bits in CapEff (linux/capability.h).
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID"),
    *("SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN"),
    *("NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE"),
    *("SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME"),
    *("SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ"),
    *("PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)


@dataclass(frozen=True)
class First:
    """The first process of a box.

    Args:
        options: What `docker create` is told for its sake.
        argv: The process.
    """

    options: tuple[str, ...]
    argv: tuple[str, ...]


INIT = First(("--init", "--stop-signal=SIGTERM"), ("box-init",))
# A kernel with the first version of cgroups has it asked twice; the second needs none of it.
SYSTEMD = First(
    ("--env=container=docker", "--stop-signal=SIGRTMIN+3"),
    (
        *("/lib/systemd/systemd", "--log-target=console", "--show-status=no"),
        *("systemd.unified_cgroup_hierarchy=0", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"),
    ),
)


@dataclass(frozen=True)
class State:
    """What the engine says about a box's container.

    Args:
        status: `running`, `exited`, ...; empty when there is none.
        image: The image it was made from.
    """

    status: str = ""
    image: str = ""


def name_of(directory: Path) -> str:
    """Return the container's name: each checkout has its own."""
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()
    return f"server-agent-vps-{digest[:8]}"


def volume_of(name: str) -> str:
    """Return the name of the volume that holds what the box's engine stores."""
    return f"{name}-docker"


def capabilities_in(status: str) -> list[str]:
    """Given the text of a process's status file, return its effective capabilities."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return [name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1]
    return []


def engine_capabilities() -> list[str]:
    """Return what the engine itself may do, and so may hand on."""
    try:
        process = Path("/var/run/docker.pid").read_text().strip()
        status = Path("/proc", process, "status").read_text()
    except OSError:
        status = Path("/proc/self/status").read_text()
    return capabilities_in(status)


def narrow_rights(capabilities: Sequence[str]) -> list[str]:
    """Return the arguments that give a box nearly everything where --privileged is refused."""
    return [
        *(f"--cap-add={capability}" for capability in capabilities),
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined",
        "--device-cgroup-rule=a *:* rwm",
        # With a namespace of its own the inner containers fail to start on cgroup v1.
        "--cgroupns=host",
        "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    ]


def rights(image: str) -> list[str]:
    """Find out which arguments let a container run an engine of its own here."""
    probe = ("docker", "run", "--rm", "--network=none")
    if ask((*probe, "--privileged", image, "true"), deadline=60).ok:
        return ["--privileged"]
    capabilities = engine_capabilities()
    while True:
        arguments = narrow_rights(capabilities)
        answer = ask((*probe, *arguments, image, "true"), deadline=60)
        unknown = unknown_capability(answer.err)
        if unknown not in capabilities:
            return arguments
        # An engine older than the kernel does not know the kernel's newest ones.
        capabilities.remove(unknown)


def unknown_capability(error: str) -> str:
    """Given the engine's refusal, return the capability it does not know, or nothing."""
    found = re.search(r'unknown capability: "?(?:CAP_)?(\w+)', error)
    return found.group(1) if found else ""


def create_arguments(
    name: str, image: str, address: str, directory: Path, options: Sequence[str]
) -> list[str]:
    """Return the arguments of `docker create` for a box."""
    return [
        *("--name", name, "--hostname", "vps", "--stop-timeout=30"),
        f"--label={LABEL}={directory.resolve()}",
        f"--label={LABEL}-address={address}",
        *(f"--publish={address}:{outside}:{inside}" for outside, inside in PORTS.items()),
        # A real reboot empties /run; a pid file of an earlier life stops the engine.
        "--tmpfs=/run:exec,mode=755",
        f"--volume={volume_of(name)}:/var/lib/docker",
        *options,
        image,
    ]


def image_name() -> str:
    """Return the box's image, named after everything it is made from."""
    digest = hashlib.sha256(BASE.encode())
    for file in sorted(FOLDER.iterdir()):
        mode = file.stat().st_mode & 0o111  # of what may be run
        digest.update(f"{file.name} {mode:o} ".encode() + file.read_bytes())
    return f"server-agent-vps:{digest.hexdigest()[:12]}"


def state_of(name: str) -> State:
    """Ask the engine about a container."""
    answer = ask(
        (
            "docker",
            "inspect",
            "--type=container",
            "-f",
            "{{.State.Status}} {{.Config.Image}}",
            name,
        ),
        deadline=20,
    )
    if not answer.ok:
        return State()
    status, _, image = answer.out.strip().partition(" ")
    return State(status, image)


def addresses_taken() -> set[str]:
    """Return the addresses of all boxes, stopped ones too."""
    shown = '{{.Label "' + LABEL + '-address"}}'
    filters = ("docker", "ps", "--all", f"--filter=label={LABEL}", "--format", shown)
    return set(ask(filters, deadline=20).out.split())


def remove(name: str) -> None:
    """Remove a container and its volumes; nothing happens when there is none.

    Raises:
        Invalid: When something of it is still there.
    """
    for argv in (
        ("docker", "rm", "--force", "--volumes", name),
        ("docker", "volume", "rm", "--force", volume_of(name)),
    ):
        answer = ask(argv, deadline=90)
        if not answer.ok and "no such" not in answer.err.lower():
            raise Invalid(f"{name} could not be removed", why=answer.tail(), next_step=NEXT)


def log_tail(name: str) -> str:
    """Return the last lines that the box wrote."""
    answer = ask(("docker", "logs", "--tail", "15", name), deadline=20)
    return (answer.err + answer.out).strip()


def ensure_image() -> str:
    """Build the box's image unless the engine has it, and return its name."""
    name = image_name()
    if not images.present(name):
        images.ensure((BASE,))
        images.build(name, FOLDER, {})
        drop_older_images(name)
    return name


def drop_older_images(newest: str) -> None:
    """Remove what earlier definitions left; what a box still uses, the engine keeps."""
    repository = newest.partition(":")[0]
    listing = ("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
    older = [name for name in ask(listing, deadline=20).out.split() if name != newest]
    if older:
        ask(("docker", "image", "rm", *older), deadline=60)


def copy_in(name: str, files: Sequence[tuple[Path, str]]) -> None:
    """Put files into a container that was created and not yet started."""
    for source, target in files:
        must(("docker", "cp", str(source), f"{name}:{target}"), deadline=30, next_step=NEXT)
