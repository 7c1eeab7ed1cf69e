"""The clone that a host keeps of the code: what origin has, and nothing older."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from deploy import git, refs
from deploy.command import Command, script
from deploy.git import Source
from deploy.host import Host
from deploy.outcome import Invalid

TOKEN = 20  # characters; the name of a user is shorter, and may be shown
# Forced and pruned: a branch or tag that origin has moved is moved here, one it has not goes.
WANTED = (f"+refs/heads/*:{refs.BRANCHES}*", f"+{refs.TAGS}*:{refs.TAGS}*")
# Credentials arrive by standard input and go on in git's environment, which only its own user
# can read. Not in the URL: git puts that into the arguments of git-remote-https, which all can.
# The URL is kept as the clone's remote only once it has proved good, and a clone that was made
# for nothing goes again. We are alone here, so a lock is that of a git that was killed.
LOGIN = """
umask 077
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
IFS= read -r FETCH_USER; IFS= read -r FETCH_PASSWORD
export FETCH_USER FETCH_PASSWORD GIT_TERMINAL_PROMPT=0 LC_ALL=C
as=()
if [ -n "$3" ]; then as=(-c credential.helper= -c "credential.$3.helper=$4"); fi
"""
FETCH = f"""
{LOGIN}
[ -e "$1" ] || trap 'rm -rf -- "$1"' EXIT
[ -e "$1/HEAD" ] || [ -e "$1/.git" ] || git init --quiet --bare -- "$1"
if [ -O "$1" ]; then chmod 0700 -- "$1"; fi
find "$1" -name '*.lock' -type f -delete
git -C "$1" "${{as[@]}}" fetch --quiet --prune --no-tags -- "$2" "${{@:6}}"
trap - EXIT
if [ -n "$5" ]; then git -C "$1" config --replace-all remote.origin.url "$2"; fi
"""
# In the clone, when there is one: how it is fetched may be said there.
HEADS = f"""
{LOGIN}
if [ -d "$1" ]; then cd -- "$1"; fi
git "${{as[@]}}" ls-remote --quiet --exit-code --heads -- "$2" "$5"
"""
# What git and ssh say of any repository that cannot be reached, whatever the cause.
NOISE = re.compile(
    r"Please make sure you have|and the repository exists|fatal: Could not read from remote|[@*]{2}"
)
HELPER = (
    '!f() { if [ "$1" = get ]; then'
    ' printf "username=%s\\npassword=%s\\n" "$FETCH_USER" "$FETCH_PASSWORD"; fi; }; f'
)


@dataclass(frozen=True)
class Address:
    """Where to fetch from, and who we are there.

    Args:
        url: The address, without what only we should know.
        server: The part of it that the credentials are for; empty when there are none.
        user: The user over HTTP, which may be a token.
        password: The password over HTTP.
    """

    url: str
    server: str = ""
    user: str = ""
    password: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what must never be shown."""
        token = self.user if len(self.user) >= TOKEN else ""
        return tuple(word for word in (self.password, token) if word)


def address_of(url: str) -> Address:
    """Given a URL as people write it, return the address, with the credentials apart.

    Raises:
        Invalid: It is none.
    """
    try:
        parts = urlsplit(url)
        login, _, server = parts.netloc.rpartition("@")
        name, _, password = login.partition(":")
        if not login or parts.scheme not in ("http", "https"):
            # Others have no use for a password: ssh asks its agent.
            keeps = f"{name}@{server}" if login else server
            found = Address(parts._replace(netloc=keeps).geturl() if password else url)
        else:
            plain = parts._replace(netloc=server).geturl()
            base = f"{parts.scheme}://{server}"
            found = Address(plain, base, unquote(name), unquote(password))
    except ValueError as error:
        raise _no_address() from error
    if not f"{url}{found.user}{found.password}".isprintable():
        raise _no_address()
    return found


def from_remote(host: Host, folder: str, url: str, ref: str, branch: str) -> Source:
    """Fetch the code into a bare clone on the host and return the commit that is meant.

    Args:
        host: Where the clone is.
        folder: The clone; it is made when missing.
        url: Where to fetch from; empty means the remote the clone already has.
        ref: What the user asked for; empty means the branch below.
        branch: The branch that is deployed by default.

    Raises:
        Invalid: There is nothing to fetch from, or origin knows no such ref.
        DeployFailed: The host's disk is full.
    """
    wanted = refs.checked(ref or branch)
    where = f"{host.name}:{folder}"
    known = known_url(host, folder, url)
    if not known:
        raise Invalid(
            "The host does not know where to fetch the code from",
            where=where,
            next_step="set git.url in invoke.yaml",
        )
    _fetch(host, folder, address_of(known), keep=bool(url))
    sha = meant(host, folder, wanted)
    if sha is None:
        raise Invalid(
            f"There is no branch, tag or commit {wanted!r}",
            where=where,
            why="HEAD is what is checked out, and nothing is on the host"
            if not refs.meanings(refs.split(wanted)[0])
            else "origin has none; what was not pushed the host cannot know",
            next_step="git push; git ls-remote --heads --tags origin",
        )
    return Source(sha, wanted, repository=folder)


def fetch_all(host: Host, folder: str, address: Address) -> None:
    """Fetch all that origin has into the clone, and make it the clone's remote.

    Raises:
        Invalid: It cannot be fetched.
        DeployFailed: The host's disk is full.
    """
    _fetch(host, folder, address, keep=True)


def known_url(host: Host, folder: str, url: str) -> str:
    """Return where a clone is fetched from: the URL, or without one its remote; or nothing."""
    return url or host.run(git.git(folder, "config", "--get", "remote.origin.url")).out.strip()


def meant(host: Host, folder: str, ref: str) -> str | None:
    """Return the commit that a ref means at origin, as it was fetched last, or None."""
    name, steps = refs.split(ref)
    sha = git.resolve(host, folder, refs.meanings(name)) or _commit(host, folder, name)
    return git.resolve(host, folder, (f"{sha}{steps}",)) if sha else None


def fetch(folder: str, address: Address, *, keep: bool) -> Command:
    """Return the command that fetches all that origin has; `keep` makes it the clone's remote."""
    kept = "keep" if keep else ""
    words = (folder, address.url, address.server, HELPER, kept, *WANTED)
    return script(FETCH, *words, stdin=_login(address), deadline=600)


def heads(folder: str, address: Address, branch: str) -> Command:
    """Return the command that asks whether origin has a branch, and fetches nothing."""
    words = (folder, address.url, address.server, HELPER, f"refs/heads/{branch}")
    return script(HEADS, *words, stdin=_login(address), deadline=30)


def telling(said: str) -> str:
    """Given what git said when it could not fetch, return what tells why, in a line."""
    lines = [line.strip() for line in said.splitlines()]
    return "; ".join([line for line in lines if line and not NOISE.match(line)][-2:])


def _login(address: Address) -> bytes:
    return f"{address.user}\n{address.password}\n".encode()


def _fetch(host: Host, folder: str, address: Address, *, keep: bool) -> None:
    host.log.learn(address.secrets)
    result = host.run(fetch(folder, address, keep=keep))
    if result.ok:
        return
    if git.FULL in result.err:
        # What it got before the disk was full would keep it full.
        host.run(git.git(folder, "prune", "--expire=now", deadline=300))
        raise git.disk_full(host, folder)
    raise Invalid(
        "The code cannot be fetched",
        where=f"{host.name}:{folder}",
        why=result.tail(),
        next_step="check git.url, and that the host's key may read the repository",
    )


def _commit(host: Host, folder: str, name: str) -> str | None:
    if not refs.may_be_commit(name):
        return None
    sha = git.resolve(host, folder, (name,))
    if sha is None or not sha.startswith(name.lower()):  # a ref of the clone's own is called so
        return None
    # What origin has dropped stays in the clone for a while, and is nothing to deploy.
    words = ("for-each-ref", "--count=1", "--contains", sha, refs.BRANCHES, refs.TAGS)
    return sha if host.run(git.git(folder, *words)).out.strip() else None


def _no_address() -> Invalid:
    return Invalid(
        "git.url is no address of a repository",
        where="invoke.yaml",
        next_step="git.url: https://host/path.git, or ssh://git@host/path.git",
    )
