"""What a webhook says: proved to be from who knows the secret, then read. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHORTEST = 16  # bytes of a secret
LONGEST_NAME = 60  # characters of who pushed that are kept
LONGEST_ID = 200  # bytes of a delivery's id; a UUID has 36
SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
SIGNATURE = b"x-hub-signature-256"
TOKEN = b"x-gitlab-token"
# The first is new with GitLab 17.4, and the same for each try.
GITLAB_IDS = (b"idempotency-key", b"x-gitlab-event-uuid")


@dataclass(frozen=True)
class Push:
    """A push that is to be deployed.

    Args:
        marks: What tells it from all others, as hexadecimal digests.
        sha: The commit it said the branch is at; for people, as the host asks origin itself.
        who: Who pushed.
    """

    marks: tuple[str, ...]
    sha: str
    who: str


@dataclass(frozen=True)
class Answer:
    """What is answered, and why.

    Args:
        status: The status of HTTP.
        text: A sentence.
    """

    status: int
    text: str


def read(headers: Mapping[bytes, bytes], body: bytes, secret: bytes, branch: str) -> Push | Answer:
    """Given a request, return the push that is to be deployed, or what is to be answered instead.

    Args:
        headers: Its headers, their names in small letters.
        body: Its body, whole.
        secret: What only we and the sender know.
        branch: The branch that is deployed.
    """
    if SIGNATURE in headers:
        return _github(headers, body, secret, branch)
    if TOKEN in headers:
        return _gitlab(headers, body, secret, branch)
    return Answer(403, "neither a signature nor a token came with it")


def signature(body: bytes, secret: bytes) -> bytes:
    """Return what GitHub signs a body with."""
    return b"sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest().encode()


def _github(
    headers: Mapping[bytes, bytes], body: bytes, secret: bytes, branch: str
) -> Push | Answer:
    if not hmac.compare_digest(headers[SIGNATURE], signature(body, secret)):
        return Answer(403, "the signature is wrong")
    kind = headers.get(b"x-github-event", b"")
    if kind != b"push":
        return Answer(200, "nothing to do: no push")
    delivery = headers.get(b"x-github-delivery", b"")
    # Only the body is signed, so that the same one under another id is a replay too.
    return _push(body, branch, (delivery, b"body " + body))


def _gitlab(
    headers: Mapping[bytes, bytes], body: bytes, secret: bytes, branch: str
) -> Push | Answer:
    if not hmac.compare_digest(headers[TOKEN], secret):
        return Answer(403, "the token is wrong")
    if headers.get(b"x-gitlab-event", b"") != b"Push Hook":
        return Answer(200, "nothing to do: no push")
    delivery = next((headers[name] for name in GITLAB_IDS if headers.get(name)), b"")
    return _push(body, branch, (delivery,))


def _push(body: bytes, branch: str, told: tuple[bytes, ...]) -> Push | Answer:
    if not told[0] or len(told[0]) > LONGEST_ID:
        return Answer(400, "it has no delivery id")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return Answer(400, "its body is no JSON: the webhook's content type is application/json")
    if not isinstance(said, dict) or not isinstance(said.get("ref"), str):
        return Answer(400, "its body is no push")
    if said["ref"] != f"refs/heads/{branch}":
        return Answer(200, f"nothing to do: only {branch} is deployed")
    after = said.get("after")
    sha = after if isinstance(after, str) and SHA.fullmatch(after) else ""
    if said.get("deleted") is True or (sha and not sha.strip("0")):
        return Answer(200, "nothing to do: the branch was deleted")
    return Push(tuple(hashlib.sha256(item).hexdigest() for item in told), sha, _who(said))


def _who(said: Mapping[str, Any]) -> str:
    pusher = said.get("pusher")
    return name_in(pusher.get("name") if isinstance(pusher, dict) else said.get("user_username"))


def name_in(said: Any) -> str:
    """Return the name of who pushed, as it may be shown."""
    text = said if isinstance(said, str) else ""
    return "".join(sign for sign in text if sign.isprintable())[:LONGEST_NAME] or "somebody"
