"""Commands of ours in a message, shown the way the reader called us."""

from __future__ import annotations

import re

from deploy.command import command

# What acts on a host, so that it would act on another one when that is not named.
VERBS = (
    *("deploy", "rollback", "backup", "restore", "status", "history", "logs", "report"),
    *("smoke", "plan", "doctor", "unlock", "setup", "secrets"),
)
# Behind the verb, as where its arguments end and a sentence goes on nobody can tell.
OURS = re.compile(rf"\binv ((?:{'|'.join(VERBS)})(?:\.[a-z]+)?)(?![\w-]|\.\w)(?![^;,\n]* --host\b)")


def as_called(text: str, tool: str, host: str) -> str:
    """Given a text, return it with our commands such that they act on the same host.

    Args:
        text: What to type next; its commands are written as `inv VERB ...`.
        tool: `inv` or `fab`.
        host: The host that was named to it; empty means the one in invoke.yaml.
    """
    if tool == "fab":
        before = command("fab", "-H", host).shown()
        return OURS.sub(lambda found: f"{before} {found[1]}", text)
    if host:
        behind = command("--host", host).shown()
        return OURS.sub(lambda found: f"{found[0]} {behind}", text)
    return text
