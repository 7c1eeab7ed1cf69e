"""The live release once more, with another password: all that the host needs to take over."""

from __future__ import annotations

import secrets
from dataclasses import replace

from deploy import host as hosts
from deploy import releases
from deploy.command import script
from deploy.docker import engine
from deploy.dotenv import write_env
from deploy.git import Source
from deploy.journal import bookkeeping
from deploy.outcome import DeployFailed, Invalid
from deploy.pipeline import Done
from deploy.postgres import scram
from deploy.redact import secret_values
from deploy.run import Run
from deploy.served import own
from deploy.steps import password, prepare, services

COPY = """
umask 077
mkdir -p -- "$2"
for name in source sbom.json; do
  if [ -e "$1/$name" ]; then cp -a -- "$1/$name" "$2/"; fi
done
"""


def renew(run: Run) -> Done:
    """Make a release like the live one, whose environment holds a new password.

    Raises:
        DeployFailed: Nothing is live.
        Invalid: The password is not this database's, or comes from the caller.
    """
    before, layout, host = run.previous, run.layout, run.target
    if before is None:
        raise DeployFailed("Nothing is live", where=host.name, next_step="inv deploy")
    variables = password.environment(run, before)
    old = _known(run, variables)
    new = (scram.other(old[0]), secrets.token_urlsafe(24))
    run.source = Source(before.sha, before.ref)
    run.settings = own(run.settings, before)
    made = prepare.release_of(run)
    run.release = replace(before, id=made.id, created=made.created, state="new", live_at="")
    host.ask(script(COPY, layout.release(before.id), layout.release(made.id)))
    host.ask(engine.tag_image(before.image, before.tag))
    whole = password.renewed(variables, old, new)
    run.log.learn((*secret_values(variables), *secret_values(whole)))
    place = layout.place(made.id, before.tag)
    hosts.replace(bookkeeping(host), place.env_file, write_env(whole))
    services.compose_file(run)
    releases.save(host, layout, run.release)
    run.build_folder = place.source
    return Done(f"{run.release.id}, for role {new[0]}")


def _known(run: Run, variables: dict[str, str]) -> tuple[str, str]:
    settings = run.settings
    if not settings.database.service:
        raise Invalid(
            "The database is not one of the compose file's",
            where="database.service",
            next_step="change its password where it is kept, then DATABASE_URL, and deploy",
        )
    if "DATABASE_URL" in settings.environment.passed:
        raise Invalid(
            "The password comes from your own DATABASE_URL, and would come back",
            where="DATABASE_URL",
            next_step="unset DATABASE_URL, also in .env here; the host's own .env keeps it",
        )
    role, old = password.login(variables)
    if not role or not old:
        raise Invalid(
            "DATABASE_URL names no role with a password",
            where=f"{run.target.name}:{run.layout.env_file}",
            next_step="it must look like postgresql://user:password@host:5432/database",
        )
    return role, old
