"""The VPS in a box: a small server on this machine, reached over SSH like any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from deploy.outcome import Invalid
from sandbox.machine.alone import alone
from sandbox.machine.facts import BASE_IMAGES
from sandbox.shell import Answer, ask, must, pipe, say, stage, until
from sandbox.vps import address as addresses
from sandbox.vps import container, keys
from sandbox.vps.container import INIT, First

STATE = "box.json"
READY_DEADLINE = 90.0
NEXT = container.NEXT


@dataclass(frozen=True)
class Box:
    """A running box.

    Args:
        container: Its container's name.
        address: Where it listens, on loopback.
        port: The port of its sshd.
        directory: The folder with `ssh_config`, keys and state.
    """

    container: str
    address: str
    port: int
    directory: Path

    @property
    def ssh_config(self) -> Path:
        """The file for `ssh -F`, which names the hosts `vps` and `vps-deploy`."""
        return self.directory / keys.CONFIG

    @property
    def url(self) -> str:
        """The front door of what is deployed, as reached from this machine."""
        return f"http://{self.address}:8000"

    def ssh(self, *argv: str) -> tuple[str, ...]:
        """Return the command that runs something in the box, as root."""
        return ("ssh", "-F", str(self.ssh_config), "vps", *argv)


def up(directory: Path, first: First = INIT) -> Box:
    """Bring the box up; one that runs already is returned as it is.

    Args:
        directory: Where its state lives, usually `.sandbox` in the checkout.
        first: What looks after all else in it.

    Returns:
        The box, answering over SSH, with its engine up and the base images loaded.

    Raises:
        Invalid: When it does not come up.
    """
    directory = directory.resolve()
    name = container.name_of(directory)
    with alone(name):
        box = bring_up(directory, name, first)
        wait_until_ready(box)
        load_images(box)
    return box


def down(directory: Path) -> None:
    """Remove the box, its volumes and its state; nothing happens when there is none.

    Args:
        directory: Where its state lives.
    """
    directory = directory.resolve()
    name = container.name_of(directory)
    with alone(name), stage(f"box {name}: removed"):
        container.remove(name)
        forget(directory)


def bring_up(directory: Path, name: str, first: First) -> Box:
    """Start, restart or make the container, whichever is needed."""
    box = remembered(directory, name)
    state = container.state_of(name)
    if box is not None and state.status == "running":
        if state.image != container.image_name():
            say("  the box is older than its definition; inv sandbox.down, then up, renews it")
        return box
    if box is not None and state.status in ("created", "exited"):
        with stage(f"box {name}: was stopped, started again at {box.address}"):
            must(("docker", "start", name), deadline=60, next_step=NEXT)
        return box
    if box is not None or state.status:
        say(f"  box {name}: what is left of an earlier one does not fit together; starting anew")
        container.remove(name)
    forget(directory)
    with stage("box image"):
        image = container.ensure_image()
    with stage(f"box {name}: made"):
        return make(directory, name, image, first)


def remembered(directory: Path, name: str) -> Box | None:
    """Return the box that the state folder tells of, if it is whole."""
    try:
        state = json.loads((directory / STATE).read_text())
        box = Box(str(state["container"]), str(state["address"]), int(state["port"]), directory)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = (keys.CONFIG, keys.KEY, keys.KNOWN_HOSTS)
    whole = box.container == name and all((directory / file).is_file() for file in files)
    return box if whole else None


def forget(directory: Path) -> None:
    """Remove the state folder, if it is one."""
    ours = any((directory / file).exists() for file in (STATE, keys.KEY, keys.CONFIG))
    if ours:
        shutil.rmtree(directory)


def make(directory: Path, name: str, image: str, first: First) -> Box:
    """Make a box that was not there before."""
    container.remove(name)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys.make(directory)
    options = (*first.options, *container.rights(image))
    seed_number = int(name.rsplit("-", 1)[1], 16)
    for address in addresses.candidates(seed_number, container.addresses_taken()):
        if not addresses.is_free(address):
            continue
        box = Box(name, address, keys.SSH_PORT, directory)
        keys.write(directory, address)
        arguments = container.create_arguments(name, image, address, directory, options)
        must(("docker", "create", *arguments, *first.argv), deadline=60, next_step=NEXT)
        container.copy_in(name, files_of(directory))
        started = ask(("docker", "start", name), deadline=60)
        if started.ok:
            remember(box)
            return box
        container.remove(name)
        if not lost_the_race(started):
            raise Invalid("The box did not start", why=started.tail(), next_step=NEXT)
    forget(directory)
    ports = ", ".join(str(port) for port in addresses.PORTS)
    raise Invalid(
        "No address in 127.0.0.0/24 is free for the box",
        why=f"something listens on one of the ports {ports} at every address",
        next_step="ss -ltnp shows what; stop it, or bind it to 127.0.0.1 alone",
    )


def lost_the_race(answer: Answer) -> bool:
    """Tell whether somebody took the address between our look and our start."""
    return "already in use" in answer.err or "already allocated" in answer.err


def files_of(directory: Path) -> list[tuple[Path, str]]:
    """Return what a new box gets: its host key, and who may come in."""
    public = directory / f"{keys.KEY}.pub"
    return [
        (directory / keys.HOST_KEY, "/etc/ssh/ssh_host_ed25519_key"),
        (directory / f"{keys.HOST_KEY}.pub", "/etc/ssh/ssh_host_ed25519_key.pub"),
        (public, "/root/.ssh/authorized_keys"),
        (public, "/home/deploy/.ssh/authorized_keys"),
    ]


def remember(box: Box) -> None:
    """Write the state that the next call reads, whole or not at all."""
    half = box.directory / f".{STATE}.new"
    state = {"container": box.container, "address": box.address, "port": box.port}
    half.write_text(json.dumps(state))
    half.replace(box.directory / STATE)


def driver_of(box: Box) -> str:
    """Return the storage driver of the box's engine; nothing while it does not answer."""
    # The client ends with 0 even when there is no engine to ask.
    return ask(box.ssh("docker", "info", "--format", "{{.Driver}}"), deadline=20).out.strip()


def wait_until_ready(box: Box) -> None:
    """Wait until ssh answers and the engine inside does."""
    if driver_of(box):
        return
    with stage(f"box {box.container}: sshd and engine answer"):
        if not until(lambda: bool(driver_of(box)), deadline=READY_DEADLINE, every=0.2):
            raise Invalid(
                f"The box did not answer within {READY_DEADLINE:.0f} s",
                where=box.address,
                why=container.log_tail(box.container),
                next_step=NEXT,
            )
    driver = driver_of(box)
    if driver != "overlay2":
        say(f"  the box's engine stores its images with {driver}: slower than overlay2")


def load_images(box: Box) -> None:
    """Give the box's engine the base images it lacks, from this machine's."""
    listing = box.ssh("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    there = set(must(listing, deadline=30, next_step=NEXT).split())
    missing = [name for name in BASE_IMAGES if name not in there]
    if not missing:
        return
    with stage(f"base images into the box: {len(missing)}"):
        pipe(
            ("docker", "save", *missing),
            box.ssh("docker", "load"),
            deadline=300,
            next_step="docker images; the base images come from ./bootstrap",
        )
