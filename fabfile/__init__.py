"""The verbs on `-H` hosts: `fab --list`. The host fetches, tests and builds by itself."""

from dataclasses import replace
from pathlib import Path

from fabric import task
from invoke import Collection

from deploy import backups, cli, doctor, exposure, planning, runbook, status, verbs
from deploy.report import text
from deploy.schedule import install as scheduling
from deploy.setup import verb as making_ready
from deploy.setup.site import Wish

ROOT = Path(__file__).resolve().parent.parent
cli.take_over(ROOT)

LOGS = {"name": "a service, deploy, or one of app.log_files; by default the live service"}
REF = {"ref": "a branch, tag or commit; by default origin/main"}
APPROVAL = {"require-approval": "wait for the Master's word before anything changes"}
WAIT = {"wait": "seconds to wait for a run that holds the lock"}
KEEP = {"keep": "days to keep backups", "download": "copy it to backups/ here"}
VERIFY = {"all": "every backup", "restore": "restore it too, into a database that is thrown away"}
RESTORE = {
    "file": "a backup on the host",
    "yes": "do not ask",
    "as": "a new database beside it",
    "identity": "the private key of an encrypted backup, in a file here",
}
SCHEDULE = {
    "at": "a time of day in UTC such as 03:30, by default database.schedule",
    "off": "no more",
}

SETUP = {
    "github-url": "where the host fetches the code; by default git.url, or what its clone has",
    "git-email": "who git on the host says it is",
    "git-name": "the same",
    "install": "install what the host lacks from its own packages, Docker included",
    "plan": "say what would be done, and do nothing",
}


@task(help={**WAIT, **REF, **APPROVAL})
def deploy(connection, ref="", wait=0.0, require_approval=False):
    """Have the host fetch, test and build the code, and make it live."""
    host, steps = cli.host_of(connection), runbook.deployment_there()
    steps = runbook.approved(steps) if require_approval else steps
    cli.call(ROOT, host, "fab", lambda session: verbs.deploy_there(session, ref, wait, steps))


@task(help={**REF, **APPROVAL})
def plan(connection, ref="", json=False, require_approval=False):
    """Say what a deployment would do, step by step, and do nothing."""
    host, steps = cli.host_of(connection), runbook.deployment_there()
    steps = runbook.approved(steps) if require_approval else steps
    printer = cli.choose(planning.as_text, as_json=json)
    cli.call(ROOT, host, "fab", lambda session: planning.from_there(session, ref, steps), printer)


@task(help={**WAIT, "to": "a release of `history`; by default the one before"})
def rollback(connection, to="", wait=0.0):
    """Go back to the release that was live and healthy before."""
    host = cli.host_of(connection)
    cli.call(ROOT, host, "fab", lambda session: verbs.rollback(session, to, wait))


@task(name="take", default=True, help={**WAIT, **KEEP})
def backup(connection, keep="", download=False, wait=0.0, json=False):
    """Back up the database on the host."""
    host = cli.host_of(connection)
    printer = cli.choose(backups.backup_as_text, as_json=json)

    def act(session):
        return backups.back_up(session.waiting(wait), keep, download=download)

    cli.call(ROOT, host, "fab", act, printer)


@task(name="download", positional=["file"], help={"file": "a backup, by default the newest"})
def backup_download(connection, file="", json=False):
    """Copy a backup to backups/ here, going on with what has arrived of it before."""
    host = cli.host_of(connection)
    printer = cli.choose(backups.backup_as_text, as_json=json)
    cli.call(ROOT, host, "fab", lambda session: backups.download(session, file), printer)


@task(name="list", help={})
def backup_list(connection, json=False):
    """List the backups on the host: state, age, size, rows, release."""
    host = cli.host_of(connection)
    printer = cli.choose(backups.listed_as_text, as_json=json)
    cli.call(ROOT, host, "fab", backups.listed, printer)


@task(name="verify", positional=["file"], help={**WAIT, **VERIFY})
def backup_verify(connection, file="", all=False, restore=False, wait=0.0, json=False):
    """See whether a backup is good, by default the newest."""
    host = cli.host_of(connection)
    printer = cli.choose(backups.verified_as_text, as_json=json)

    def act(session):
        return backups.verify(session.waiting(wait), file, every=all, by_restoring=restore)

    cli.call(ROOT, host, "fab", act, printer)


@task(name="schedule", help=SCHEDULE)
def backup_schedule(connection, at="", off=False):
    """Have the host back up its database by itself, each day."""
    act = scheduling.remove if off else lambda session: scheduling.install(session, at)
    cli.call(ROOT, cli.host_of(connection), "fab", act)


@task(positional=["file"], help={**WAIT, **RESTORE})
def restore(connection, file, yes=False, as_=None, identity="", wait=0.0):
    """Replace the database by a backup, after a look at both."""
    host = cli.host_of(connection)

    def act(session):
        return backups.restore(session.waiting(wait), file, as_, identity, yes=yes)

    cli.call(ROOT, host, "fab", act)


@task
def smoke(connection):
    """Run the smoke tests on what is live."""
    cli.call(ROOT, cli.host_of(connection), "fab", verbs.smoke_test)


@task(help=SETUP)
def setup(connection, github_url="", git_email="", git_name="", install=False, plan=False):
    """Make a bare Debian or Ubuntu host ready; what is right already is left alone."""
    wish = Wish(github_url, git_email, git_name, install)
    act = making_ready.plan if plan else making_ready.setup
    printer = replace(cli.words(making_ready.as_text), code=making_ready.code)
    host = cli.host_of(connection)
    cli.call(ROOT, host, "fab", lambda session: act(session, wish), printer)


@task(name="status")
def status_(connection, json=False):
    """Say what is live, what a rollback would bring, and who holds the lock."""
    printer = cli.choose(status.as_text, as_json=json)
    cli.call(ROOT, cli.host_of(connection), "fab", verbs.look, printer)


@task(name="doctor")
def doctor_(connection, json=False):
    """Look for what would stop a deployment, here and there, and say what to do about it."""
    host = cli.host_of(connection)
    printer = replace(cli.choose(doctor.as_text, as_json=json), code=doctor.code)
    cli.guard(lambda: doctor.examine(ROOT, host, "fab"), printer)


@task(help={"limit": "how many runs"})
def history(connection, limit=20, json=False):
    """List the runs on the host, newest first."""
    host, printer = cli.host_of(connection), cli.choose(text.history, as_json=json)
    cli.call(ROOT, host, "fab", lambda session: verbs.history(session, limit), printer)


@task(positional=["run"], help={"run": "a run of `history`; by default the newest"})
def report(connection, run="", json=False):
    """Report on a run: each step, its time, and what came of it."""
    host, printer = cli.host_of(connection), cli.choose(text.report, as_json=json)
    cli.call(ROOT, host, "fab", lambda session: verbs.report(session, run), printer)


@task(positional=["name"], help=LOGS)
def logs(connection, name="", lines=100, follow=False):
    """Show what the live service wrote, or the log of the newest run."""
    host = cli.host_of(connection)
    cli.call(ROOT, host, "fab", lambda s: verbs.logs(s, name, lines, follow=follow))


@task(help={"yes": "remove it"})
def unlock(connection, yes=False):
    """Show who holds the lock; with --yes, remove it."""
    host = cli.host_of(connection)
    cli.call(ROOT, host, "fab", lambda session: verbs.unlock(session, yes=yes))


@task(name="check")
def secrets_check(connection, json=False):
    """Find committed secrets, and files with secrets that others may read."""
    printer = cli.choose(exposure.as_text, as_json=json)
    cli.call(ROOT, cli.host_of(connection), "fab", exposure.check, printer)


@task(name="rotate", help=WAIT)
def secrets_rotate(connection, wait=0.0):
    """Give the database a new password, without losing a request."""
    cli.call(ROOT, cli.host_of(connection), "fab", lambda session: verbs.rotate(session, wait))


BACKUP = Collection("backup", backup, backup_download, backup_list, backup_verify, backup_schedule)
ACTS = (setup, deploy, plan, rollback, BACKUP, restore, unlock)
LOOKS = (smoke, status_, doctor_, history, report, logs)
SECRETS = Collection("secrets", secrets_check, secrets_rotate)
namespace = Collection(*ACTS, *LOOKS, SECRETS)
