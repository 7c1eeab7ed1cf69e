"""Our side of a push: bring the library and the plan to the host, and have git call them."""

from __future__ import annotations

import json
from typing import Any

from deploy import host as hosts
from deploy import settings as configuration
from deploy.command import command, script
from deploy.library import bundle
from deploy.library import install as unpack
from deploy.origin import address_of
from deploy.outcome import Invalid
from deploy.schedule.install import python_of
from deploy.session import Session
from deploy.steps import prepare
from deploy.triggers import units, work
from deploy.triggers.units import Place

# What the host's part needs and Debian's Python lacks. None of it has to be compiled.
ALONG = ("yaml", "uvicorn", "h11", "click")
KEPT = 3  # libraries: a deployment, or the listener, may still run from the one before
FOLDERS = """
umask 077
mkdir -p -m 0755 -- "$1" "$2" "$2/lib" "$4" "$5"
[ -d "$3" ] || { mkdir -- "$3"; : >>"$3/lock"; }
"""
TIDY = """
cd -- "$1"
ls -1t | tail -n "+$(($2 + 1))" | while IFS= read -r old; do rm -rf -- "$old"; done
"""
# Of the file, not of the repository: git reads that of nobody but its owner.
DIFFERS = """
folder=$1; shift
[ -e "$folder/HEAD" ] || { echo HEAD; exit 0; }
[ -x "$folder/hooks/post-receive" ] || echo hook
while [ "$#" -gt 0 ]; do
  [ "$(git config --file "$folder/config" --get "$1" || true)" = "$2" ] || echo "$1"
  shift 2
done
"""
# One that somebody has made before is let be, but for its hook and for what must hold of it.
REPOSITORY = """
umask 077
folder=$1; branch=$2; shift 2
for name in $(env | sed -n 's/^\\(GIT_[A-Z_]*\\)=.*/\\1/p'); do unset "$name"; done
[ -e "$folder/HEAD" ] || git init --quiet --bare --initial-branch="$branch" -- "$folder"
while [ "$#" -gt 0 ]; do git config --file "$folder/config" "$1" "$2"; shift 2; done
mkdir -p -- "$folder/hooks"
"""
LARGEST = str(2 * 1024**3)  # bytes of one push


def push_lacks(session: Session) -> tuple[str, ...]:
    """Return what is to be done until the host deploys what is pushed to it, as we would.

    Raises:
        Invalid: It lacks what it takes.
    """
    place = place_of(session)
    return (*untold(session, place), *unhooked(session, place))


def push(session: Session) -> None:
    """Have the host deploy what is pushed to it over git.

    Raises:
        Invalid: The host lacks what it takes; nothing was changed.
    """
    host, layout = session.target, session.layout
    prepare.preflight(session.run("deploy", host))
    place = place_of(session)
    bring(session, place)
    host.ask(script(REPOSITORY, layout.pushed, session.settings.git.branch, *_wanted(session)))
    if hosts.read(host, layout.hook) != (text := units.hook(place)) or unhooked(session, place):
        hosts.replace(host, layout.hook, text.encode(), "0755")


def push_told(session: Session) -> tuple[str, ...]:
    """Say where to push to."""
    host, path, branch = session.target.name, session.layout.pushed, session.settings.git.branch
    url = path if host == "local" else f"ssh://{host}{path}"
    return (f"A push deploys: git push {url} {branch}",)


def place_of(session: Session) -> Place:
    """Return where on the host the triggers are, or will be.

    Raises:
        Invalid: It has no Python that does.
    """
    layout = session.layout
    return Place(
        project=session.settings.deploy.project,
        python=python_of(session.target),
        library=f"{layout.triggers}/lib/{bundle(*ALONG).name}",
        plan=f"{layout.triggers}/plan.json",
        root=layout.root,
    )


def untold(session: Session, place: Place) -> tuple[str, ...]:
    """Return what the host does not know as we do: the library, and the settings."""
    host, lacks = session.target, []
    if not host.run(command("test", "-d", place.library)).ok:
        lacks.append("bring the library that deploys")
    if not _agree(hosts.read(host, place.plan), plan_of(session, host.name)):
        lacks.append("tell the host what is set in invoke.yaml")
    return tuple(lacks)


def unhooked(session: Session, place: Place) -> tuple[str, ...]:
    """Return what git on the host does not do as it should."""
    host, layout = session.target, session.layout
    differs = host.ask(script(DIFFERS, layout.pushed, *_wanted(session))).split()
    if not differs and hosts.read(host, layout.hook) == units.hook(place):
        return ()
    return (f"have a push to {layout.pushed} deploy",)


def _wanted(session: Session) -> tuple[str, ...]:
    return (
        *("core.hooksPath", f"{session.layout.pushed}/hooks"),
        *("receive.fsckObjects", "true"),
        *("receive.maxInputSize", LARGEST),
        *("receive.shallowUpdate", "true"),
    )


def bring(session: Session, place: Place) -> None:
    """Bring the library and the plan to the host, where they are not there as they are.

    Raises:
        Invalid: The folders cannot be made.
    """
    host, folder = session.target, f"{session.layout.triggers}/lib"
    make_folders(session)
    if not host.run(command("test", "-d", place.library)).ok:
        host.ask(unpack(bundle(*ALONG), folder))
        host.ask(script(TIDY, folder, str(KEPT)))
    plan = plan_of(session, host.name)
    if not _agree(hosts.read(host, place.plan), plan):
        hosts.replace(host, place.plan, plan.encode(), "0644")


def _agree(there: str, here: str) -> bool:
    """Tell whether two plans say the same, whatever they call the host.

    Two people may reach it by two names; only as `local` it has another front door.
    """
    try:
        return bool(_nameless(there) == _nameless(here))
    except (ValueError, KeyError, TypeError):
        return False


def _nameless(text: str) -> Any:
    plan = json.loads(text)
    name = plan["settings"]["deploy"]["host"]
    plan["host"] = plan["settings"]["deploy"]["host"] = name == "local"
    return plan


def make_folders(session: Session) -> None:
    """Make the folders that the triggers need.

    Raises:
        Invalid: They cannot be made.
    """
    layout, host = session.layout, session.target
    words = (layout.root, layout.triggers, layout.queue, layout.proxy, layout.listening)
    made = host.run(script(FOLDERS, *words))
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
