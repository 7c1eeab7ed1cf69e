"""From code to image: the backup before it, the tests, the build, and its way to the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deploy import host as hosts
from deploy import releases, traffic
from deploy.command import Command
from deploy.docker import compose, confined, engine, render, thin
from deploy.host import transfer
from deploy.host.process import CommandFailed
from deploy.outcome import BuildFailed, DataFailed, DeployFailed, TestsFailed
from deploy.pipeline import Done, undisturbed
from deploy.postgres import access, backup, offsite, retention
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup, Origin
from deploy.run import Run
from deploy.steps.live import heads

if TYPE_CHECKING:
    from deploy.settings import Settings

COVERAGE = re.compile(r"^TOTAL\s.*?(\d+(?:\.\d+)?)%", re.MULTILINE)
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")
SECRET = ("TELEGRAM_API_TOKEN", "MASTER_CHAT_ID", "DATABASE_URL")  # the pipeline's own


def back_up(run: Run) -> Done:
    """Back up the database; a failure is told but stops nothing."""
    try:
        database = access.database(run.target, run.settings, run.env_file)
        if database is None:
            return Done("no database is configured or running", "skipped")
        found = save(run, database)
        run.release = replace(run.release, backup=found.name)  # written down when it is shipped
        prune_backups(run, found)
        return copied(run, found)
    except (DataFailed, CommandFailed) as error:
        run.facts["backup"] = {"state": "failed", "why": error.as_text()}
        run.warn(f"the backup failed: {error.as_text()}")
        return Done(f"failed: {error.what}", "warned")


def save(run: Run, database: Database) -> Backup:
    """Take a backup, and note it."""
    found = backup.take(database, origin(run), datetime.now(UTC), run.log.say)
    run.backup = found
    run.facts["backup"] = {"state": "good", "name": found.name, "bytes": found.bytes}
    return found


def copied(run: Run, found: Backup) -> Done:
    """Copy a backup off the host, when that is wanted; return how the step went that took it."""
    note = f"{found.name}, {found.rows} rows, {found.bytes} bytes"
    to = run.settings.database.copy_to
    if not to:
        return Done(note)
    run.log.say(f"  {found.name}: copying to {to}")
    try:
        offsite.copy(run.target, found, to, run.settings.database.deadline)
        run.backup = replace(found, copied=to)
        backup.write(run.target, run.backup)
    except CommandFailed as error:
        run.warn(f"the backup is good, but was not copied to {to}: {error.as_text()}")
        return Done(f"{note}; not copied to {to}", "warned")
    run.facts["backup"] |= {"copied": to}
    return Done(f"{note}; copied to {to}")


def origin(run: Run) -> Origin:
    """Return what is live, as the manifest of a backup names it."""
    found = tuple(heads(run))
    before = run.previous
    return Origin(before.id, before.sha, found) if before else Origin(heads=found)


def prune_backups(run: Run, taken: Backup) -> None:
    """Remove the backups that no rule keeps, but for those that a release on the host needs.

    Args:
        run: The run.
        taken: The backup that it has taken.
    """
    kept = run.settings.database.keep
    rule = retention.Rule(
        days=run.settings.database.keep_days,
        daily=kept.daily,
        weekly=kept.weekly,
        monthly=kept.monthly,
        least=run.settings.database.keep_min,
    )
    doomed = retention.to_delete(
        backup.listing(run.target, run.layout.backups),
        rule,
        now=datetime.now(UTC),
        protected=frozenset({taken.name, *(item.backup for item in run.releases)}),
    )
    backup.prune(run.target, doomed)


def test(run: Run) -> Done:
    """Run the release's own tests in containers that are thrown away.

    Raises:
        Invalid: Their compose file asks for more than such containers may have.
        BuildFailed: Their image cannot be built.
        TestsFailed: They fail, or cover too little.
    """
    settings = run.settings.tests
    if not settings.compose_file:
        return Done("no tests are configured", "skipped")
    project, file = gate(run.settings, run.id, run.mark), _confined(run)
    withheld = (*SECRET, *run.settings.deploy.pass_env)

    def words(*rest: str, deadline: float = settings.deadline) -> Command:
        folder = run.build_folder
        return compose.test_words(project, folder, file, withheld, *rest, deadline=deadline)

    try:
        with _failing(BuildFailed, "The image for the tests could not be built"):
            _heard(run, words("build", settings.service))
        result = run.builder.run(words("run", "--rm", settings.service), run.log.show)
    finally:
        with undisturbed():
            run.builder.run(engine.remove_all(project))  # what still runs would hold the rest
            run.builder.run(words("down", "--volumes", "--rmi", "local", deadline=120))
    figures = parse_tests(result.out)
    run.facts["tests"] = figures
    judge_tests(figures, result.code, settings.coverage_threshold, result.tail(40))
    return Done(f"{figures['passed']:g} passed, coverage {figures.get('coverage', 0):g} %")


def _confined(run: Run) -> str:
    """Write the compose file that the tests run from; return its path."""
    folder, name = run.build_folder, run.settings.tests.compose_file
    confined.see_inside(run.builder, folder, (name,))
    data = render.parse(hosts.read(run.builder, f"{folder}/{name}"), name)
    text = confined.rendered(data, name)
    confined.see_inside(run.builder, folder, confined.paths(data))
    # Beside the commit's files: among them it would be part of the image.
    path = f"{PurePosixPath(folder).parent}/tests.yml"
    hosts.replace(run.builder, path, text.encode())
    return path


def gate(settings: Settings, run: str, mark: str) -> str:
    """Return the compose project that the tests of a run are."""
    return f"{settings.deploy.project}-test-{run}-{mark}"


def parse_tests(text: str) -> dict[str, float]:
    """Given what pytest wrote, return its counts and, when it measured it, the coverage."""
    figures = {"passed": 0.0, "failed": 0.0, "errors": 0.0, "skipped": 0.0}
    summary = [line for line in text.splitlines() if COUNT.search(line)]
    for count, kind in COUNT.findall(summary[-1]) if summary else ():
        figures["errors" if kind == "error" else kind] = float(count)
    covered = COVERAGE.findall(text)
    if covered:
        figures["coverage"] = float(covered[-1])
    return figures


def judge_tests(figures: dict[str, float], code: int, threshold: float, tail: str) -> None:
    """Hold a release to the figures of its tests.

    Raises:
        TestsFailed: A test failed, none ran, or they cover less than the threshold.
    """
    cure = "correct the tests or the code, then deploy again"
    if code != 0:
        count = figures["failed"] + figures["errors"]
        raise TestsFailed(
            f"{count:g} tests failed" if count else f"The tests ended with exit code {code}",
            why=tail,
            next_step=cure,
        )
    if not figures["passed"]:
        raise TestsFailed("No test has run", why=tail, next_step=cure)
    if threshold and figures.get("coverage", -1.0) < threshold:
        found = f"{figures['coverage']:g} %" if "coverage" in figures else "not measured"
        raise TestsFailed(
            f"Coverage is {found}, the threshold is {threshold:g} %",
            next_step="cover more, or lower tests.coverage_threshold",
        )


def build(run: Run) -> Done:
    """Build the image of the release.

    Raises:
        Invalid: Its Dockerfile is a link out of the commit's files.
        BuildFailed: It cannot be built.
    """
    settings = run.settings
    confined.see_inside(run.builder, run.build_folder, (settings.build.dockerfile,))
    arguments = {
        "BUILD_DATE": run.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "VCS_REF": run.source.sha,
        "VERSION": settings.build.version or run.source.short,
    }
    with _failing(BuildFailed, "The image could not be built"):
        _heard(
            run,
            engine.build_image(
                run.build_folder,
                settings.build.dockerfile,
                run.release.tag,
                arguments,
                settings.build.deadline,
            ),
        )
        identity = run.builder.ask(engine.image_id(run.release.tag)).strip()
    run.release = replace(run.release, image=identity)
    return Done(f"{run.release.tag} is {identity[:19]}")


def ship(run: Run) -> Done:
    """Bring the image to the target, unless it was built there or is there already."""
    if run.builder is run.target:
        releases.save(run.target, run.layout, run.release)
        return Done("it was built on the host", "skipped")
    tag = run.release.tag
    if run.target.run(engine.image_id(run.release.image)).ok:
        run.target.ask(engine.tag_image(run.release.image, tag))
        note = "the host has it already"
    else:
        with _failing(DeployFailed, "The image did not arrive on the host"):
            note = _send(run, tag)
    # Engines with different image stores name the same image differently.
    identity = run.target.ask(engine.image_id(tag)).strip()
    run.release = replace(run.release, image=identity)
    releases.save(run.target, run.layout, run.release)
    return Done(note)


def _send(run: Run, tag: str) -> str:
    """Send an image without the layers that the host has, or whole where that is not understood."""
    own = engine.parse_layers(run.builder.ask(engine.layers_of(tag)))
    there = engine.parse_layers(run.target.ask(engine.all_layers()))
    known = thin.common(own[0] if own else (), there)
    if known:
        save = engine.save_thin(run.builder.python, tag, known)
        try:
            size = transfer(run.builder, save, run.target, engine.load_image())
        except CommandFailed as error:
            run.log.write(f"the image travels whole: {error.as_text()}")
        else:
            return f"{size / 1e6:.1f} MB, {len(known)} layers were there"
    size = transfer(run.builder, engine.save_image(tag), run.target, engine.load_image())
    return f"{size / 1e6:.1f} MB"


def keep(run: Run) -> Done:
    """See that the image that is live now will be there to go back to."""
    if run.previous is None:
        return Done("nothing is live yet", "skipped")
    if not run.target.run(engine.image_id(run.previous.image)).ok:
        run.warn(f"the image of {run.previous.id} is gone; its container remains")
        return Done("its image is gone", "warned")
    # A second build of the same commit has just taken the name over.
    if run.previous.tag == run.release.tag:
        return Done(f"{run.previous.id} by its image {run.previous.image[:19]}")
    run.target.ask(engine.tag_image(run.previous.image, run.previous.tag))
    return Done(f"{run.previous.id} as {run.previous.tag}")


def unbuild(run: Run) -> None:
    """Leave the image's name with the release that is live, when it has the same."""
    traffic.give_tag_back(run.target, run.release, run.previous)


def _heard(run: Run, what: Command) -> None:
    result = run.builder.run(what, run.log.show)
    if not result.ok:
        raise CommandFailed(f"exit code {result.code}", where=run.builder.name, why=result.tail(40))


@contextmanager
def _failing(kind: type[BuildFailed | DeployFailed], what: str) -> Iterator[None]:
    try:
        yield
    except CommandFailed as error:
        raise kind(
            what,
            where=error.where,
            why=f"{error.what}\n{error.why}".strip(),
            next_step="correct the cause above and deploy again",
        ) from error
