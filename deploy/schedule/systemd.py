"""By a timer of systemd."""

from __future__ import annotations

from deploy import host as hosts
from deploy.command import command, script
from deploy.host import Host
from deploy.schedule.job import PATH, Job

UNITS = "/etc/systemd/system"
# With a user it has a home, where Docker's plugins and contexts may be.
SERVICE = """\
# Written by `inv backup.schedule`, which also removes it: changes are lost.
[Unit]
Description=Backup of the database of {project}
Wants=network-online.target
After=network-online.target docker.service

[Service]
Type=oneshot
User=root
Environment=PATH={path}
WorkingDirectory={library}
ExecStart={line}
Nice=10
KillMode=mixed
UMask=0077
"""
# Persistent: one that was missed, as the host was down, is taken when it is up.
TIMER = """\
# Written by `inv backup.schedule`, which also removes it: changes are lost.
[Unit]
Description=Backup of the database of {project}, each day

[Timer]
OnCalendar=*-*-* {at}:00 UTC
Persistent=true
RandomizedDelaySec=60

[Install]
WantedBy=timers.target
"""
IS_ON = 'systemctl is-enabled --quiet "$1" && systemctl is-active --quiet "$1"'
TURN_ON = 'systemctl daemon-reload; systemctl enable --quiet "$1"; systemctl restart "$1"'
# Forgets when it ran last, else another one would start with what that has missed. The timer's
# file goes last: it says that there is something to remove.
TURN_OFF = """
systemctl disable --now --quiet "$2.timer" || true
rm -f -- "/var/lib/systemd/timers/stamp-$2.timer" "$1/$2.service"
rm -f -- "$1/$2.timer"
systemctl daemon-reload
"""


def service(job: Job) -> str:
    """Return the unit that takes a backup."""
    values = {"project": job.name.removesuffix("-backup"), "path": PATH}
    return _filled(SERVICE, **values, library=job.library, line=job.line)


def timer(job: Job) -> str:
    """Return the unit that starts it each day."""
    return _filled(TIMER, project=job.name.removesuffix("-backup"), at=job.at)


def _filled(unit: str, **values: str) -> str:
    return unit.format(**{name: value.replace("%", "%%") for name, value in values.items()})


def put(host: Host, job: Job) -> bool:
    """Have systemd start a job; return whether it did not do so already."""
    wanted = {"service": service(job), "timer": timer(job)}
    paths = {kind: f"{UNITS}/{job.name}.{kind}" for kind in wanted}
    stale = [kind for kind, text in wanted.items() if hosts.read(host, paths[kind]) != text]
    for kind in stale:
        hosts.replace(host, paths[kind], wanted[kind].encode(), "0644")
    unit = f"{job.name}.timer"
    if not stale and host.run(script(IS_ON, unit)).ok:
        return False
    host.ask(script(TURN_ON, unit))
    return True


def there(host: Host, name: str) -> bool:
    """Tell whether systemd starts a job of that name."""
    return host.run(script(IS_ON, f"{name}.timer")).ok


def remove(host: Host, name: str) -> bool:
    """Have systemd start a job no more; return whether it did so."""
    if not host.run(command("test", "-e", f"{UNITS}/{name}.timer")).ok:
        return False
    host.ask(script(TURN_OFF, UNITS, name))
    return True


def told(job: Job) -> str:
    """Say who starts a job."""
    return f"by systemd timer {job.name}.timer"
