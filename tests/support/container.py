"""Docker as a person types it, and SQL in a container of PostgreSQL."""

from __future__ import annotations

import subprocess

SECRET = "correct-horse-battery-staple"


def docker(*words: str, stdin: str = "", check: bool = True) -> str:
    done = subprocess.run(
        ("docker", *words), input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(words[:3])}: {done.stderr}")
    return done.stdout


def sql(server: str, text: str, name: str = "live") -> str:
    words = ("psql", "-X", "-qtA", "-v", "ON_ERROR_STOP=1", "-U", "owner", "-d", name)
    return docker("exec", "--interactive", server, *words, stdin=text).strip()
