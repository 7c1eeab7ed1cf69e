"""Our side of a webhook: have systemd keep the listener running, and deploy what it hears."""

from __future__ import annotations

from deploy import host as hosts
from deploy.command import command, script
from deploy.dotenv import parse_env
from deploy.journal import bookkeeping as quiet
from deploy.outcome import Invalid
from deploy.schedule.install import RUNNING
from deploy.schedule.systemd import UNITS
from deploy.session import Session
from deploy.settings import Settings
from deploy.triggers import queue, units
from deploy.triggers.events import SHORTEST
from deploy.triggers.install import make_folders, place_of

SHARED = (
    "WEBHOOK_SECRET"  # by this name the application knows it, when it is to ask for deployments
)
UNIT_NAMES = ("listen.service", "deploy.path", "deploy.service")
# Whether systemd runs the host, and whether it obeys us.
SYSTEMD = """
if ! { [ -d "$1" ] && command -v systemctl >/dev/null; }; then echo none
elif [ "$(id -u)" != 0 ]; then echo "root's"
else echo ours
fi
"""
HEARS = 'curl --silent --max-time 5 --unix-socket "$1" http://listener/'
# Whether it goes by the secret that is there. On stdin, as everybody sees the arguments.
KNOWS = """
code=$(printf 'X-Gitlab-Token: %s\n' "$(cat -- "$2")" | curl --silent --max-time 5 \
  --header @- --request POST --output /dev/null --write-out '%{http_code}' \
  --unix-socket "$1" http://listener/)
[ "$code" = 200 ]
"""
PROOF = """
umask 077
[ ! -s "$1" ] || { chmod 0600 -- "$1"; exit 0; }
part=$(mktemp -- "$1.XXXXXX")
head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n' >"$part"
sync -- "$part"
mv -T -- "$part" "$1"
"""
OWNER = 'stat -c %U -- "$1" 2>/dev/null || id -un'
# Root would be too much for who hears the whole world. What root brings stays the owner's.
HAND = """
owner=$1 user=$2
id -u -- "$user" >/dev/null 2>&1 ||
  useradd --system --no-create-home --home-dir / --shell /usr/sbin/nologin -- "$user"
find "$3" -path "$4" -prune -o -exec chown -h -- "$owner" {} +
: >>"$4/lock"
chown -R -h -- "$user" "$4" "$5"
"""
# What it must read is changed next; should we be killed, it is not heard, and so mended. And what
# it owns may be a link that leads us, who may be root, to anything.
SILENCE = """
systemctl stop --quiet "$1" 2>/dev/null || true
find "$2" "$3" -type l -delete
"""
IS_ON = """
for unit in "$@"; do
  systemctl is-enabled --quiet "$unit" && systemctl is-active --quiet "$unit" || exit 1
done
"""
TURN_ON = """
socket=$1; shift
systemctl daemon-reload
for unit in "$@"; do systemctl enable --quiet "$unit"; systemctl restart "$unit"; done
ends=$((SECONDS + 30))
until [ -n "$(curl --silent --max-time 5 --unix-socket "$socket" http://listener/)" ]; do
  [ "$SECONDS" -lt "$ends" ] || break
  sleep 0.2
done
"""
TURN_OFF = """
folder=$1; shift
for unit in "$@"; do systemctl disable --now --quiet "$unit" 2>/dev/null || true; done
rm -f -- "$folder/$1" "$folder/$2" "$folder/$3"
systemctl daemon-reload
"""


def lacks(session: Session) -> tuple[str, ...]:
    """Return what is to be done until the host hears webhooks, or no more does.

    Raises:
        Invalid: It has no Python that does.
    """
    host, layout, settings = session.target, session.layout, session.settings
    if not settings.webhook.path:
        there = host.run(command("test", "-e", f"{UNITS}/{_lasting(settings)[0]}")).ok
        return ("hear webhooks no more",) if there else ()
    if _systemd(session) == "none":
        hears = host.run(script(HEARS, _socket(session))).ok
        return () if hears else ("keep a listener running",)
    found = []
    rights, user = hosts.rights(host, layout.webhook_secret), _who(session)[1]
    shared = _shared(session)
    if not rights or (shared and hosts.read(quiet(host), layout.webhook_secret).strip() != shared):
        found.append("make a secret for webhooks")
    elif rights.open:
        found.append(f"close {layout.webhook_secret} to others")
    elif rights.owner != user:
        found.append(f"hand {layout.webhook_secret} to {user}")
    texts = _texts(session)
    if any(hosts.read(host, f"{UNITS}/{unit}") != text for unit, text in texts.items()):
        found.append("tell systemd of a listener, and of what it wants deployed")
    elif not host.run(script(IS_ON, *_lasting(settings))).ok or not _knows(session):
        found.append("start the listener")
    return tuple(found)


def hindrance(session: Session) -> Invalid | None:
    """Return what keeps us from having systemd do anything, with its cure."""
    way, host = _systemd(session), session.target
    if way == "none":
        return Invalid(
            "Nothing on the host keeps a listener running",
            where=host.name,
            why="systemd does not run there",
            next_step=f"keep this running there: inv listen --address {_socket(session)};"
            " or set no webhook.path",
        )
    if way == "root's":
        return Invalid(
            "Only root may have systemd keep a listener running",
            where=host.name,
            next_step="log in there as root for a set-up; all else does without",
        )
    return None


def install(session: Session) -> None:
    """Have the host hear webhooks, and deploy what they want; or hear them no more.

    Its library and its plan are there.
    """
    host, layout, settings = session.target, session.layout, session.settings
    if not settings.webhook.path:
        names = [f"{settings.deploy.project}-{rest}" for rest in UNIT_NAMES]
        host.ask(script(TURN_OFF, UNITS, *names))
        return
    make_folders(session)
    shared = _shared(session)
    if shared and len(shared.encode()) < SHORTEST:
        raise Invalid(
            f"{SHARED} has fewer than {SHORTEST} characters",
            where=f"{host.name}:{layout.env_file}",
            next_step=f"put a longer one there, as openssl rand -hex 32 makes it; or take {SHARED}"
            " out, and one is made",
        )
    host.ask(script(SILENCE, _lasting(settings)[0], layout.queue, layout.listening))
    if shared:
        hosts.replace(host, layout.webhook_secret, shared.encode())
    host.ask(script(PROOF, layout.webhook_secret))
    owner, user = _who(session)
    words = (layout.triggers, layout.queue, layout.listening)
    host.ask(script(HAND, owner, user, *words))
    for unit, text in _texts(session).items():
        hosts.replace(host, f"{UNITS}/{unit}", text.encode(), "0644")
    host.ask(script(TURN_ON, _socket(session), *_lasting(settings), deadline=90))


def told(session: Session, door: str) -> tuple[str, ...]:
    """Say where webhooks go, and where their secret is.

    Args:
        session: The session.
        door: The front door, as a URL.
    """
    path = session.settings.webhook.path
    if not path:
        return ()
    place = f"{session.target.name}:{session.layout.webhook_secret}"
    return (
        f"A webhook deploys, once the next deployment has told the proxy: {door.rstrip('/')}{path}",
        f"  as JSON, push events alone; its secret is in {place}",
    )


def _shared(session: Session) -> str:
    """Return the secret that the application knows too, empty when it knows none."""
    text = hosts.read(quiet(session.target), session.layout.env_file)
    secret = parse_env(text, session.layout.env_file).get(SHARED, "")
    session.log.learn((secret,) if secret else ())
    return secret


def _knows(session: Session) -> bool:
    words = (_socket(session), session.layout.webhook_secret)
    return session.target.run(script(KNOWS, *words)).ok


def _lasting(settings: Settings) -> tuple[str, ...]:
    return tuple(f"{settings.deploy.project}-{rest}" for rest in UNIT_NAMES[:2])


def _socket(session: Session) -> str:
    return f"{session.layout.listening}/socket"


def _systemd(session: Session) -> str:
    return session.target.ask(script(SYSTEMD, RUNNING)).strip()


def _who(session: Session) -> tuple[str, str]:
    """Return whose the application's folder is, and who hears webhooks."""
    owner = session.target.ask(script(OWNER, session.layout.root)).strip()
    user = f"{session.settings.deploy.project[:25]}-hooks"
    if user[0].isdigit():  # no user's name begins so
        user = f"_{user}"
    return owner, user if owner == "root" else owner


def _texts(session: Session) -> dict[str, str]:
    layout, place = session.layout, place_of(session)
    owner, user = _who(session)
    branch = session.settings.git.branch
    texts = (
        units.listen(place, user, branch, layout.queue, layout.listening),
        units.watch(place, f"{layout.queue}/{queue.WANTED}"),
        units.deployment(place, owner),
    )
    names = (f"{place.project}-{rest}" for rest in UNIT_NAMES)
    return dict(zip(names, texts, strict=True))
