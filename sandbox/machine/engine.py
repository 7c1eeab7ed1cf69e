"""The Docker engine of this machine: started where none runs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from deploy.outcome import Invalid
from sandbox.machine.apt import as_root
from sandbox.machine.facts import SYSTEM_PATHS, Engine, engine_state
from sandbox.shell import ask, must, say, until

PID_FILES = (
    (Path("/var/run/docker.pid"), "dockerd"),
    (Path("/run/docker/containerd/containerd.pid"), "containerd"),
    (Path("/run/docker/containerd/daemon/containerd.pid"), "containerd"),
)


def process_name(pid: str, proc: Path = Path("/proc")) -> str:
    """Return the name of a running process, or nothing."""
    if not pid.isdigit():
        return ""
    try:
        return (proc / pid / "comm").read_text().strip()
    except OSError:
        return ""


def is_stale(file: Path, program: str, proc: Path = Path("/proc")) -> bool:
    """Tell whether a pid file outlived its process.

    After `kill -9` the number may belong to something else by now, and the engine
    would take that for itself.
    """
    try:
        pid = file.read_text().strip()
    except OSError:
        return False
    return process_name(pid, proc) != program


def answers() -> bool:
    """Tell whether the engine answers us or at least refuses us."""
    return engine_state()[0] is not Engine.DOWN


def start(log: Path) -> None:
    """Start the engine and wait until it answers.

    Args:
        log: Where the engine writes when no service manager keeps its log.

    Raises:
        Invalid: When it does not come up.
    """
    if Path("/run/systemd/system").is_dir():
        must(
            as_root(("systemctl", "start", "docker")),
            deadline=120,
            next_step="journalctl -u docker -n 50",
        )
        wait(log, None)
        return
    if runs():
        wait(log, None)
        return
    for file, program in PID_FILES:
        if is_stale(file, program):
            must(as_root(("rm", "-f", str(file))), deadline=10, next_step=f"rm {file}")
            say(f"  removed {file}: its {program} is gone")
    wait(log, launch(log))


def runs() -> bool:
    """Tell whether an engine process is there already, perhaps still coming up."""
    file, program = PID_FILES[0]
    return file.is_file() and not is_stale(file, program)


def launch(log: Path) -> subprocess.Popen[bytes]:
    """Start the engine in a session of its own, so that it outlives us."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PATHS))
    with log.open("ab") as out:
        return subprocess.Popen(
            as_root(("env", f"PATH={path}", "dockerd")),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )


def wait(log: Path, process: subprocess.Popen[bytes] | None) -> None:
    """Wait until the engine answers, as long as there is hope."""
    born = time.monotonic()

    def settled() -> bool:
        gone = process is not None and process.poll() is not None
        # Another bootstrap may have been faster: then ours ends and that one answers.
        return answers() or (gone and time.monotonic() - born > 10)

    until(settled, deadline=90, every=0.2)
    if not answers():
        raise Invalid(
            "The Docker engine did not come up",
            where=str(log),
            why=ask(("tail", "-n", "8", str(log)), deadline=10).out.strip(),
            next_step=f"read {log}, then run it again",
        )
