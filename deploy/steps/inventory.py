"""What a release is made of, kept with it: its bill of materials."""

from __future__ import annotations

from deploy import host as hosts
from deploy.docker import sbom
from deploy.journal import bookkeeping
from deploy.outcome import Failure
from deploy.pipeline import Done
from deploy.run import Run


def take(run: Run) -> Done:
    """List the packages of the image, and how they differ from those of the live release.

    A release that cannot be listed is no worse for it: that is a warning.
    """
    try:
        return _take(run)
    except Failure as error:
        run.warn(f"the packages of the image could not be listed: {error.as_text()}")
        return Done(f"failed: {error.what}", "warned")


def _take(run: Run) -> Done:
    quiet = bookkeeping(run.target)
    packages = sbom.parse(quiet.ask(sbom.listing(run.release.image)))
    at = run.started.strftime("%Y-%m-%dT%H:%M:%SZ")
    data = sbom.document(packages, run.settings.deploy.project, run.release.sha, at)
    hosts.replace(quiet, run.layout.bill(run.release.id), data)
    against = run.previous.id if run.previous else ""
    old = hosts.read(quiet, run.layout.bill(against)) if against else ""
    before = sbom.packages_in(old)
    changes = None if before is None else sbom.difference(before, packages)
    found = sbom.as_json(packages, len(data), against, changes)
    run.facts["sbom"] = found
    return Done(f"{found['python']} Python, {found['debian']} Debian packages")
