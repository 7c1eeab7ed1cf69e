"""The files for GitHub, GitLab and Jenkins, and their shell commands run as they would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ".github/workflows/deploy.yml"
GITLAB = ".gitlab-ci.yml"
JENKINS = "Jenkinsfile"
FILES = (GITHUB, GITLAB, JENKINS)
GIVEN = re.compile(r"\$\{\{ (?:secrets|vars)\.([A-Z_]+) \}\}")
QUOTED = re.compile(r"sh '''(.*?)'''", re.DOTALL)


@dataclass(frozen=True)
class Vps:
    """What a CI is told about a host."""

    address: str
    port: int
    user: str
    key: Path
    known_hosts: Path


def copy(target: Path) -> None:
    """Give a project the CI files, and what they install."""
    for name in FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    shutil.copytree(ROOT / "requirements", target / "requirements", dirs_exist_ok=True)


def run(name: str, checkout: Path, vps: Vps, sha: str, **more: str) -> tuple[int, str]:
    """Run the commands of a CI file, to the first that fails.

    Args:
        name: The file.
        checkout: The project, as the CI has checked it out.
        vps: Where it deploys to.
        sha: The commit.
        more: Variables that it gets besides.

    Returns:
        The exit code and all that was said.
    """
    home = checkout.parent / f"home-of-{Path(name).stem}"
    home.mkdir(exist_ok=True)
    environ = {
        **{key: os.environ[key] for key in os.environ if key.startswith("PIP_") or key == "PATH"},
        "HOME": str(home),
        "PIP_CACHE_DIR": str(Path("~/.cache/pip").expanduser()),
        "CI": "true",
        "DEPLOY_HOST": vps.address,
        "DEPLOY_PORT": str(vps.port),
        "DEPLOY_USER": vps.user,
        **more,
    }
    files = {"DEPLOY_KEY": str(vps.key), "DEPLOY_KNOWN_HOSTS": str(vps.known_hosts)}
    said = ""
    for argv, told in {GITHUB: _github, GITLAB: _gitlab, JENKINS: _jenkins}[name](
        checkout, environ, files, sha
    ):
        done = subprocess.run(
            argv, cwd=checkout, env=told, capture_output=True, text=True, timeout=600, check=False
        )
        said += done.stdout + done.stderr
        if done.returncode:
            return done.returncode, said
    return 0, said


Told = Mapping[str, str]
Steps = list[tuple[tuple[str, ...], dict[str, str]]]


def load(name: str, folder: Path = ROOT) -> Any:
    """Return the content of a file that is YAML, with its keys as they stand there."""
    return yaml.load((folder / name).read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - texts alone


def _github(checkout: Path, environ: Told, files: Told, sha: str) -> Steps:
    given = {**environ, **{key: Path(path).read_text() for key, path in files.items()}}
    found: Steps = []
    for step in load(GITHUB, checkout)["jobs"]["deploy"]["steps"]:
        if "run" not in step or "if" in step:
            continue
        kept = {key: value for key, value in environ.items() if not key.startswith("DEPLOY_")}
        own = {
            key: GIVEN.sub(lambda match: given.get(match[1], ""), value)
            for key, value in step.get("env", {}).items()
        }
        argv = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"])
        found.append((argv, {**kept, **own, "GITHUB_SHA": sha}))
    return found


def _gitlab(checkout: Path, environ: Told, files: Told, sha: str) -> Steps:
    text = "\n".join(load(GITLAB, checkout)["deploy"]["script"])
    argv = ("bash", "-e", "-o", "pipefail", "-c", text)
    return [(argv, {**environ, **files, "CI_COMMIT_SHA": sha})]


def _jenkins(checkout: Path, environ: Told, files: Told, sha: str) -> Steps:
    (text,) = QUOTED.findall((checkout / JENKINS).read_text())
    argv = ("sh", "-xe", "-c", text.replace("\\\\", "\\"))
    return [(argv, {**environ, **files, "GIT_COMMIT": sha})]
