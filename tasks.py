"""The verbs on this machine: `inv --list`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from invoke import Collection, task

from deploy import audit as auditing
from deploy import backups, cli, doctor, exposure, planning, runbook, status, verbs
from deploy.report import text
from deploy.schedule import install as scheduling
from deploy.setup import verb as making_ready
from deploy.setup.site import Wish
from deploy.triggers import here as webhooks
from sandbox import box, contents
from sandbox import demo as demonstration
from sandbox import sweep as sweeping

ROOT = Path(__file__).resolve().parent
cli.take_over(ROOT)

PYTHON = (sys.executable, "-m")
RUFF = (*PYTHON, "ruff")
CHECKS = ((*RUFF, "check", "."), (*RUFF, "format", "--check", "."), (*PYTHON, "mypy"))
PYTEST = (*PYTHON, "pytest")
SIDE_BY_SIDE = ("--dist", "loadfile", "--no-loadscope-reorder")
AUDIT = (*PYTHON, "invoke", "audit")
QUICK = (*PYTEST, "-n", "6", *SIDE_BY_SIDE, "tests/integration", "tests/unit")
FAST = (*QUICK, "-m", "not slow")
COVERED = (*QUICK, "--cov", "--cov-report=")
# Two boxes side by side: most of the time one waits for something.
BOXES = (*PYTEST, "-n", "2", *SIDE_BY_SIDE, "tests/e2e", "tests/smoke")
WHOLE = (*BOXES, "--cov", "--cov-append", "--cov-fail-under=90")

WAIT = {"wait": "seconds to wait for a run that holds the lock"}
HOST = {"host": "an SSH host, or local; by default deploy.host of invoke.yaml"}
LOGS = {"name": "a service, deploy, or one of app.log_files; by default the live service"}
REF = {"ref": "a branch, tag or commit; by default the one checked out"}
APPROVAL = {"require-approval": "wait for the Master's word before anything changes"}
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
JSON = {"json": "print one JSON document on stdout, and nothing else there"}


@task(help={**HOST, **WAIT, **REF, **APPROVAL})
def deploy(_context, host="", ref="", wait=0.0, require_approval=False):
    """Test and build here, ship the image, and make it live."""
    steps = runbook.deployment_from_here()
    steps = runbook.approved(steps) if require_approval else steps
    cli.call(ROOT, host, "inv", lambda session: verbs.deploy_from_here(session, ref, wait, steps))


@task(help={**HOST, **JSON, **REF, **APPROVAL})
def plan(_context, ref="", host="", json=False, require_approval=False):
    """Say what a deployment would do, step by step, and do nothing."""
    steps = runbook.deployment_from_here()
    steps = runbook.approved(steps) if require_approval else steps
    printer = cli.choose(planning.as_text, as_json=json)
    cli.call(ROOT, host, "inv", lambda session: planning.from_here(session, ref, steps), printer)


@task(help={**HOST, **WAIT, "to": "a release of `inv history`; by default the one before"})
def rollback(_context, host="", to="", wait=0.0):
    """Go back to the release that was live and healthy before."""
    cli.call(ROOT, host, "inv", lambda session: verbs.rollback(session, to, wait))


@task(
    name="take",
    default=True,
    help={
        **HOST,
        **WAIT,
        **JSON,
        "keep": "days to keep backups, by default database.keep_days and keep",
        "download": "copy it to backups/ here, and check it",
    },
)
def backup(_context, host="", keep="", download=False, wait=0.0, json=False):
    """Back up the database on the host."""
    printer = cli.choose(backups.backup_as_text, as_json=json)

    def act(session):
        return backups.back_up(session.waiting(wait), keep, download=download)

    cli.call(ROOT, host, "inv", act, printer)


@task(
    name="download",
    positional=["file"],
    help={**HOST, **JSON, "file": "a backup on the host, by default the newest good one"},
)
def backup_download(_context, file="", host="", json=False):
    """Copy a backup to backups/ here, going on with what has arrived of it before."""
    printer = cli.choose(backups.backup_as_text, as_json=json)
    cli.call(ROOT, host, "inv", lambda session: backups.download(session, file), printer)


@task(name="list", help={**HOST, **JSON})
def backup_list(_context, host="", json=False):
    """List the backups on the host: state, age, size, rows, release."""
    printer = cli.choose(backups.listed_as_text, as_json=json)
    cli.call(ROOT, host, "inv", backups.listed, printer)


@task(name="verify", positional=["file"], help={**HOST, **WAIT, **JSON, **VERIFY})
def backup_verify(_context, file="", host="", all=False, restore=False, wait=0.0, json=False):
    """See whether a backup is good, by default the newest."""
    printer = cli.choose(backups.verified_as_text, as_json=json)

    def act(session):
        return backups.verify(session.waiting(wait), file, every=all, by_restoring=restore)

    cli.call(ROOT, host, "inv", act, printer)


@task(name="schedule", help={**HOST, **SCHEDULE})
def backup_schedule(_context, host="", at="", off=False):
    """Have the host back up its database by itself, each day."""
    act = scheduling.remove if off else lambda session: scheduling.install(session, at)
    cli.call(ROOT, host, "inv", act)


@task(positional=["file"], help={**HOST, **WAIT, **RESTORE})
def restore(_context, file, host="", yes=False, as_=None, identity="", wait=0.0):
    """Replace the database by a backup, after a look at both."""

    def act(session):
        return backups.restore(session.waiting(wait), file, as_, identity, yes=yes)

    cli.call(ROOT, host, "inv", act)


@task(help=HOST)
def smoke(_context, host=""):
    """Run the smoke tests on what is live."""
    cli.call(ROOT, host, "inv", verbs.smoke_test)


@task(help={**HOST, **SETUP})
def setup(_context, host="", github_url="", git_email="", git_name="", install=False, plan=False):
    """Make a bare Debian or Ubuntu host ready; what is right already is left alone."""
    wish = Wish(github_url, git_email, git_name, install)
    act = making_ready.plan if plan else making_ready.setup
    printer = replace(cli.words(making_ready.as_text), code=making_ready.code)
    cli.call(ROOT, host, "inv", lambda session: act(session, wish), printer)


@task(name="status", help={**HOST, **JSON})
def status_(_context, host="", json=False):
    """Say what is live, what a rollback would bring, and who holds the lock."""
    cli.call(ROOT, host, "inv", verbs.look, cli.choose(status.as_text, as_json=json))


@task(name="doctor", help={**HOST, **JSON})
def doctor_(_context, host="", json=False):
    """Look for what would stop a deployment, here and there, and say what to do about it."""
    printer = replace(cli.choose(doctor.as_text, as_json=json), code=doctor.code)
    cli.guard(lambda: doctor.examine(ROOT, host, "inv"), printer)


@task(help={**HOST, **JSON, "limit": "how many runs"})
def history(_context, host="", limit=20, json=False):
    """List the runs on the host, newest first."""
    printer = cli.choose(text.history, as_json=json)
    cli.call(ROOT, host, "inv", lambda session: verbs.history(session, limit), printer)


@task(
    positional=["run"],
    help={**HOST, **JSON, "run": "a run of `inv history`; by default the newest"},
)
def report(_context, run="", host="", json=False):
    """Report on a run: each step, its time, and what came of it."""
    printer = cli.choose(text.report, as_json=json)
    cli.call(ROOT, host, "inv", lambda session: verbs.report(session, run), printer)


@task(positional=["name"], help={**HOST, **LOGS})
def logs(_context, name="", host="", lines=100, follow=False):
    """Show what the live service wrote, or the log of the newest run."""
    cli.call(ROOT, host, "inv", lambda session: verbs.logs(session, name, lines, follow=follow))


@task(help={**HOST, "yes": "remove it"})
def unlock(_context, host="", yes=False):
    """Show who holds the lock; with --yes, remove it."""
    cli.call(ROOT, host, "inv", lambda session: verbs.unlock(session, yes=yes))


@task(help={"address": "HOST:PORT, by default 127.0.0.1:9000, or the path of a socket"})
def listen(_context, address="127.0.0.1:9000"):
    """Hear GitHub's and GitLab's webhooks on this machine, and deploy to it what is pushed."""
    cli.call(ROOT, "local", "inv", lambda session: webhooks.listen(session, address))


@task(help=REF)
def build(_context, ref=""):
    """Test and build the image of a commit here, without deploying it."""
    cli.call(ROOT, "local", "inv", lambda session: verbs.build(session, ref))


@task(help={"fast": "the checkers, unit and integration tests alone"})
def test(context, fast=False):
    """Run the checkers and the tests of this project, pipeline and agent."""
    for argv in (*CHECKS, *((FAST,) if fast else (AUDIT, COVERED, WHOLE))):
        context.run(shlex.join(argv), echo=True, in_stream=False)


@task(name="check", help={**HOST, **JSON})
def secrets_check(_context, host="", json=False):
    """Find committed secrets, and files with secrets that others may read."""
    printer = cli.choose(exposure.as_text, as_json=json)
    cli.call(ROOT, host, "inv", exposure.check, printer)


@task(name="rotate", help={**HOST, **WAIT})
def secrets_rotate(_context, host="", wait=0.0):
    """Give the database a new password, without losing a request."""
    cli.call(ROOT, host, "inv", lambda session: verbs.rotate(session, wait))


@task
def audit(_context):
    """Look up known vulnerabilities of the pinned dependencies."""
    cli.guard(lambda: auditing.run(ROOT))


@task
def demo(_context):
    """Show three deployments to the box: the first, one under load, a broken one."""
    cli.guard(lambda: demonstration.run(ROOT))


@task(
    help={
        "points": "how many, drawn at random; 0 for all",
        "seed": "draw those again",
        "only": "what their names begin with, such as deploy:host",
    }
)
def sweep(_context, points=0, seed=0, only=""):
    """Kill the pipeline before and after every step, in the box, and see it put right."""
    cli.guard(lambda: sweeping.run(ROOT, points, seed, only))


@task
def up(_context):
    """Start the VPS in a box; `ssh -F .sandbox/ssh_config vps` reaches it."""
    cli.guard(lambda: contents.seed(box.up(ROOT / ".sandbox"), ROOT))


@task
def down(_context):
    """Remove the VPS in a box and all that is in it."""
    cli.guard(lambda: box.down(ROOT / ".sandbox"))


BACKUP = Collection("backup", backup, backup_download, backup_list, backup_verify, backup_schedule)
ACTS = (setup, deploy, plan, rollback, BACKUP, restore, unlock, listen)
LOOKS = (smoke, status_, doctor_, history, report, logs)
SECRETS = Collection("secrets", secrets_check, secrets_rotate)
SANDBOX = Collection("sandbox", up, down)
namespace = Collection(*ACTS, *LOOKS, SECRETS, build, test, audit, demo, sweep, SANDBOX)
