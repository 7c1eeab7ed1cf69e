"""What a person may call a commit, and what each such name means where origin has the say."""

from __future__ import annotations

import re

from deploy.outcome import Invalid

LONGEST = 200
BRANCHES = "refs/remotes/origin/"
TAGS = "refs/tags/"
WAYS_TO_A_BRANCH = ("refs/heads/", "heads/", BRANCHES, "remotes/origin/", "origin/")
WAYS_TO_A_TAG = (TAGS, "tags/")
COMMIT = re.compile(r"[0-9a-f]{4,64}")
STEPS_BACK = re.compile(r"(?P<name>.*?)(?P<steps>(?:[~^][0-9]*)*)", re.DOTALL)
# What git lets no name hold, and what is more likely a piece of shell than of a name.
REFUSED = frozenset([*" ~^:?*[\\\x7f", *map(chr, range(32))])
FOREIGN = REFUSED | set("`$;|&<>'\"")


def checked(ref: str) -> str:
    """Return a ref that is safe to hand to git, unchanged.

    It is what git accepts as the name of a branch, with or without steps back (`main~2`),
    but for what looks like a flag or a piece of shell, or cannot be shown as it is.

    Raises:
        Invalid: It looks like a flag, a command or no ref at all.
    """
    if len(ref) > LONGEST or not _is_name(split(ref)[0]):
        raise Invalid(
            f"{ref[:80]!r} is no git ref",
            where="--ref",
            next_step="name a branch, a tag or a commit, for example --ref main",
        )
    return ref


def split(ref: str) -> tuple[str, str]:
    """Given `main~2`, return `main` and `~2`."""
    found = STEPS_BACK.fullmatch(ref)
    return (found["name"], found["steps"]) if found else (ref, "")


def meanings(name: str) -> tuple[str, ...]:
    """Return the full names of what origin may call so; a branch comes before a tag.

    Never a name alone: git would also look among the clone's own branches, which no fetch
    brings up to date. HEAD has no meaning: what is checked out is known elsewhere.
    """
    for prefix in WAYS_TO_A_BRANCH:
        if name.startswith(prefix):
            branch = name.removeprefix(prefix)
            return () if branch == "HEAD" else (BRANCHES + branch,)
    for prefix in WAYS_TO_A_TAG:
        if name.startswith(prefix):
            return (TAGS + name.removeprefix(prefix),)
    return () if name == "HEAD" else (BRANCHES + name, TAGS + name)


def may_be_commit(name: str) -> bool:
    """Tell whether a name may be a commit's id, or its beginning."""
    return COMMIT.fullmatch(name.lower()) is not None


def is_branch(name: str) -> bool:
    """Tell whether git takes a name for a branch's, as `git check-ref-format --branch` does."""
    return name != "HEAD" and not name.startswith("-") and _is_to_git(name)


def is_plain_branch(name: str) -> bool:
    """Tell whether a name is a branch's, and no other way to say one: `refs/heads/main`, `@`."""
    ways = WAYS_TO_A_BRANCH + WAYS_TO_A_TAG
    return is_branch(name) and name != "@" and not name.startswith(ways)


def _is_name(name: str) -> bool:
    foreign = name == "@" or name.startswith("-") or FOREIGN & set(name)
    return not foreign and name.isprintable() and _is_to_git(name)


def _is_to_git(name: str) -> bool:
    parts = name.split("/")
    return (
        not REFUSED & set(name)
        and not name.endswith(".")
        and ".." not in name
        and "@{" not in name
        and all(part and part[0] != "." and not part.endswith(".lock") for part in parts)
    )
