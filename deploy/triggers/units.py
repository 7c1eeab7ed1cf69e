"""What the host is told about its triggers: git's hook, and the units of systemd. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from deploy.schedule.job import PATH, WORD

USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
HOOK = """\
#!/bin/sh
# Written by `inv setup`: changes are lost.
PATH={path}; export PATH
cd {library} || {{ cat >/dev/null; echo 'nothing is deployed: run inv setup again' >&2; exit 7; }}
exec {python} -s -m deploy.triggers.pushed {plan}
"""
# Nothing of it needs the network or the engine: the socket is a file, and so is what it wants. Of
# the application's folder it sees what it runs from and what it writes.
LISTEN = """\
# Written by `inv setup`: changes are lost.
[Unit]
Description=Webhooks that deploy {project}
# What else it read when it was started: the branch.
X-Branch={branch}

[Service]
User={user}
Environment=PATH={path}
WorkingDirectory={library}
ExecStart={python} -s -m deploy.triggers.listen {plan} {socket}
Restart=always
RestartSec=1
UMask=0077
LimitNOFILE=8192
MemoryMax=256M
TasksMax=64
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
TemporaryFileSystem={root}:ro
BindReadOnlyPaths={library} {plan}
BindPaths={queue} {listening}
InaccessiblePaths=-/run/docker.sock
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""
# Told when the file is there, and again when a deployment ends and it still is.
WATCH = """\
# Written by `inv setup`: changes are lost.
[Unit]
Description=What webhooks want of {project}

[Path]
PathExists={wanted}

[Install]
WantedBy=paths.target
"""
# It fails when it could not begin, or was killed, and is tried again for as long as it takes; a
# deployment that failed was one, and has ended. Its end is the host's part, which goes on by itself
# when the rest is killed: that one alone is told to stop, passes it on, and waits until what must
# be is undone.
DEPLOY = """\
# Written by `inv setup`: changes are lost.
[Unit]
Description=A deployment of {project} that a webhook wanted
Wants=network-online.target
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
User={owner}
Environment=PATH={path}
WorkingDirectory={library}
ExecStart={python} -s -m deploy.triggers.work wanted {plan}
Restart=on-failure
RestartSec=15
KillMode=process
TimeoutStopSec=300
UMask=0077
"""


@dataclass(frozen=True)
class Place:
    """Where on a host its triggers are.

    Args:
        project: What they deploy.
        python: An interpreter, by its path.
        library: The folder with this package and what comes along.
        plan: The file that says what to deploy, and how.
        root: The application's folder.
    """

    project: str
    python: str
    library: str
    plan: str
    root: str

    @property
    def words(self) -> dict[str, str]:
        """Return what stands in the texts.

        Raises:
            ValueError: Neither systemd nor a shell would read one of them as it is meant.
        """
        found = {
            "project": self.project,
            "python": self.python,
            "library": self.library,
            "plan": self.plan,
            "root": self.root,
        }
        strange = [word for word in found.values() if not WORD.fullmatch(word)]
        if strange:
            raise ValueError(f"not to be written in a unit or a hook: {strange}")
        return {**found, "path": PATH}


def hook(place: Place) -> str:
    """Return what git is to run after a push."""
    return HOOK.format(**place.words)


def listen(place: Place, user: str, branch: str, queue: str, listening: str) -> str:
    """Return the unit of the listener.

    Args:
        place: Where the triggers are.
        user: Who it runs as.
        branch: What is deployed.
        queue: The folder of what is wanted.
        listening: The folder of its socket.
    """
    return LISTEN.format(
        **place.words,
        user=_user(user),
        branch=hashlib.sha256(branch.encode()).hexdigest()[:16],
        queue=queue,
        listening=listening,
        socket=f"{listening}/socket",
    )


def watch(place: Place, wanted: str) -> str:
    """Return the unit that starts a deployment as long as a file is there."""
    return WATCH.format(**place.words, wanted=wanted)


def deployment(place: Place, owner: str) -> str:
    """Return the unit that deploys what is wanted, as whoever the application's folder is."""
    return DEPLOY.format(**place.words, owner=_user(owner))


def _user(name: str) -> str:
    if not USER.fullmatch(name):
        raise ValueError(f"no name of a user: {name!r}")
    return name
