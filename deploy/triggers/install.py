"""Our side: bring the library and the plan to the host, and have git and systemd call them."""

from __future__ import annotations

import json

from deploy import host as hosts
from deploy import settings as configuration
from deploy.command import command, script
from deploy.library import bundle
from deploy.library import install as unpack
from deploy.origin import address_of
from deploy.outcome import Invalid
from deploy.schedule.install import RUNNING, python_of
from deploy.schedule.systemd import UNITS
from deploy.session import Session
from deploy.steps import prepare
from deploy.triggers import queue, units, work
from deploy.triggers.units import Place

# What the host's part needs and Debian's Python lacks. None of it has to be compiled.
ALONG = ("yaml", "uvicorn", "h11", "click")
KEPT = 3  # libraries: a deployment, or the listener, may still run from the one before
FOLDERS = """
umask 077
mkdir -p -m 0755 -- "$1" "$2" "$2/lib"
mkdir -p -- "$3"
: >>"$3/lock"
"""
# Others may look at the code and at the plan, which hold no secret: the listener is one of them.
OPEN = 'chmod -R a+rX -- "$1"'
TIDY = """
cd -- "$1"
ls -1t | tail -n "+$(($2 + 1))" | while IFS= read -r old; do rm -rf -- "$old"; done
"""
# One that somebody has made before is let be, but for its hook and for what must hold of it.
REPOSITORY = """
umask 077
for name in $(env | sed -n 's/^\\(GIT_[A-Z_]*\\)=.*/\\1/p'); do unset "$name"; done
[ -e "$1/HEAD" ] || git init --quiet --bare --initial-branch="$2" -- "$1"
set_to() { [ "$(git -C "$1" config --get "$2" || true)" = "$3" ] || git -C "$1" config "$2" "$3"; }
set_to "$1" core.hooksPath "$1/hooks"
set_to "$1" receive.fsckObjects true
set_to "$1" receive.maxInputSize "$3"
set_to "$1" receive.shallowUpdate true
mkdir -p -- "$1/hooks"
"""
LARGEST = str(2 * 1024**3)  # bytes of one push
PROOF = """
umask 077
[ ! -s "$1" ] || exit 0
part=$(mktemp -- "$1.XXXXXX")
head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n' >"$part"
sync -- "$part"
mv -T -- "$part" "$1"
echo made
"""
SYSTEMD = '[ "$(id -u)" = 0 ] && [ -d "$1" ] && command -v systemctl >/dev/null'
OWNER = 'stat -c %U -- "$1"'
# Root would be too much for who hears the whole world.
HAND = """
who=$1
if [ "$who" = root ]; then
  who=$2
  id -u -- "$who" >/dev/null 2>&1 ||
    useradd --system --no-create-home --home-dir / --shell /usr/sbin/nologin -- "$who"
fi
mkdir -p -m 0755 -- "$5"
chmod a+x -- "$4"
chown -R -- "$who" "$3" "$5"
echo "$who"
"""
IS_ON = """
for unit in "$@"; do systemctl is-enabled --quiet "$unit" && systemctl is-active --quiet "$unit"
done
"""
TURN_ON = """
systemctl daemon-reload
for unit in "$@"; do systemctl enable --quiet "$unit"; systemctl restart "$unit"; done
"""
TURN_OFF = """
folder=$1; shift
for unit in "$@"; do systemctl disable --now --quiet "$unit" 2>/dev/null || true; done
rm -f -- "$folder/$1" "$folder/$2" "$folder/$3"
systemctl daemon-reload
"""


def push(session: Session) -> str:
    """Have the host deploy what is pushed to it over git; say where to push to.

    Raises:
        Invalid: The host lacks what it takes; nothing was changed.
    """
    host, layout = session.target, session.layout
    place, changed = bring(session)
    branch, repository = session.settings.git.branch, layout.pushed
    host.ask(script(REPOSITORY, repository, branch, LARGEST))
    path, wanted = f"{repository}/hooks/post-receive", units.hook(place)
    if hosts.read(host, path) != wanted:
        hosts.replace(host, path, wanted.encode(), "0755")
        changed = True
    said = f"a push of {branch} to {host.name}:{repository} deploys it"
    return said if changed else f"nothing to do: {said}"


def listener(session: Session) -> str:
    """Have the host hear webhooks, and deploy what they want; say where they go.

    Raises:
        Invalid: No path is set for them, or systemd does not run there or does not obey us.
    """
    host, layout, settings = session.target, session.layout, session.settings
    if not settings.webhook.path:
        raise Invalid(
            "There is no path for webhooks",
            where="webhook.path",
            next_step="set it in invoke.yaml, such as /hooks/deploy",
        )
    if not host.run(script(SYSTEMD, RUNNING)).ok:
        raise Invalid(
            "Nothing on the host keeps a listener running",
            where=host.name,
            why="systemd does not run there or does not obey this user",
            next_step="connect as root where systemd runs; or keep inv listen running there",
        )
    place, changed = bring(session)
    changed |= bool(host.ask(script(PROOF, layout.webhook_secret)))  # the listener has read the old
    owner = host.ask(script(OWNER, layout.root)).strip()
    name = name_of(session)
    words = (owner, f"{name[:25]}-hooks", layout.queue, layout.proxy, layout.listening)
    user = host.ask(script(HAND, *words)).strip()
    texts = {
        f"{name}-listen.service": units.listen(place, user, layout.queue, layout.listening),
        f"{name}-deploy.path": units.watch(place, f"{layout.queue}/{queue.WANTED}"),
        f"{name}-deploy.service": units.deployment(place, owner),
    }
    for unit, text in texts.items():
        if hosts.read(host, f"{UNITS}/{unit}") != text:
            hosts.replace(host, f"{UNITS}/{unit}", text.encode(), "0644")
            changed = True
    lasting = (f"{name}-listen.service", f"{name}-deploy.path")
    if changed or not host.run(script(IS_ON, *lasting)).ok:
        host.ask(script(TURN_ON, *lasting))
        changed = True
    said = (
        f"webhooks are heard at {settings.webhook.path} from the next deployment on, which tells"
        f" the proxy; their secret is in {host.name}:{layout.webhook_secret}"
    )
    return said if changed else f"nothing to do: {said}"


def remove_listener(session: Session) -> str:
    """Have the host hear webhooks no more; what they wanted stays."""
    name, host = name_of(session), session.target
    names = [f"{name}-{rest}" for rest in ("listen.service", "deploy.path", "deploy.service")]
    if not host.run(command("test", "-e", f"{UNITS}/{names[0]}")).ok:
        return "nothing to do: there was no listener"
    host.ask(script(TURN_OFF, UNITS, *names))
    return "no more webhooks"


def name_of(session: Session) -> str:
    """Return what the units of a project begin with."""
    return session.settings.deploy.project


def bring(session: Session) -> tuple[Place, bool]:
    """Bring the library and the plan to the host.

    Returns:
        Where they are, and whether they were not there as they are.

    Raises:
        Invalid: The host lacks what it takes; nothing was changed.
    """
    host, layout = session.target, session.layout
    prepare.preflight(session.run("deploy", host))
    found, folder = bundle(*ALONG), f"{layout.triggers}/lib"
    place = Place(
        project=session.settings.deploy.project,
        python=python_of(host),
        library=f"{folder}/{found.name}",
        plan=f"{layout.triggers}/plan.json",
        root=layout.root,
    )
    make_folders(session)
    changed = False
    if not host.run(command("test", "-d", place.library)).ok:
        host.ask(unpack(found, folder))
        host.ask(script(OPEN, place.library))
        host.ask(script(TIDY, folder, str(KEPT)))
        changed = True
    plan = plan_of(session, host.name)
    if hosts.read(host, place.plan) != plan:
        hosts.replace(host, place.plan, plan.encode(), "0644")
        changed = True
    return place, changed


def make_folders(session: Session) -> None:
    """Make the folders that the triggers need.

    Raises:
        Invalid: They cannot be made.
    """
    layout, host = session.layout, session.target
    made = host.run(script(FOLDERS, layout.root, layout.triggers, layout.queue))
    if not made.ok:
        raise Invalid(
            "The folder for the triggers cannot be made",
            where=f"{host.name}:{layout.triggers}",
            why=made.tail(3),
            next_step=f"make {layout.root} writable for this user, or set deploy.root",
        )


def plan_of(session: Session, name: str) -> str:
    """Return what the host of that name needs to know to deploy; secrets are not among it."""
    told = session.settings.model_dump(mode="json", exclude={"environment"})
    url = session.settings.git.url
    told["git"]["url"] = address_of(url).url if url else ""
    file = session.folder / configuration.FILE
    plan = {
        "host": name,
        "settings": told,
        "told": work.digest(file.read_text(encoding="utf-8")),
    }
    return json.dumps(plan, ensure_ascii=False) + "\n"
