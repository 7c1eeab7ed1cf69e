"""The clone that a host keeps, with real git: it deploys what origin has, and nothing older."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy import git, origin
from deploy.host import Host
from deploy.outcome import DeployFailed, Failure, Invalid
from tests.support.disk import small_disk

AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@localhost")
PASSWORD = "planted/p@ss word"
QUOTED = "planted%2Fp%40ss%20word"


@dataclass(frozen=True)
class Code:
    """What a developer has, what origin has, and where the host's clone is."""

    work: Path
    bare: Path
    clone: Path
    host: Host

    def git(self, *words: str) -> str:
        return run_git(self.work, *words)

    def commit(self, text: str) -> str:
        (self.work / "file").write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", text[:20])
        return self.git("rev-parse", "HEAD")

    def pushed(self, text: str) -> str:
        sha = self.commit(text)
        self.git("push", "--quiet", "--force", "--tags", "origin", "HEAD")
        return sha

    def fetched(self, ref: str = "", url: str | None = None) -> str:
        given = f"file://{self.bare}" if url is None else url
        return origin.from_remote(self.host, str(self.clone), given, ref, "main").sha

    def refused(self, ref: str) -> None:
        with pytest.raises(Invalid, match="There is no branch, tag or commit"):
            self.fetched(ref)


def run_git(folder: Path, *words: str) -> str:
    argv = ("git", "-C", str(folder), *AUTHOR, *words)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def code(here: Host, tmp_path: Path) -> Code:
    bare, work = tmp_path / "origin.git", tmp_path / "work"
    for words in (("--bare", str(bare)), (str(work),)):
        subprocess.run(("git", "init", "--quiet", "-b", "main", *words), check=True, timeout=60)
    run_git(work, "remote", "add", "origin", str(bare))
    found = Code(work, bare, tmp_path / "root" / "repo", here)
    found.clone.parent.mkdir()
    found.pushed("one")
    return found


@pytest.mark.parametrize(
    "ref", ["", "main", "origin/main", "heads/main", "refs/heads/main", "refs/remotes/origin/main"]
)
def test_a_branch_is_what_origin_has_now(code: Code, ref: str) -> None:
    # A clone as a person makes it: with branches and a HEAD of its own, which no fetch moves.
    run_git(code.work, "clone", "--quiet", "--bare", f"file://{code.bare}", str(code.clone))
    second = code.pushed("two")
    assert code.fetched(ref) == second
    assert code.fetched(ref, url="") == second


@pytest.mark.parametrize("ref", ["HEAD", "origin/HEAD", "HEAD~1", "FETCH_HEAD", "refs/stash"])
def test_what_only_the_clone_knows_is_refused(code: Code, ref: str) -> None:
    run_git(code.work, "clone", "--quiet", "--bare", f"file://{code.bare}", str(code.clone))
    run_git(code.clone, "fetch", "--quiet", "origin", "main")
    run_git(code.clone, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    run_git(code.clone, "update-ref", "refs/stash", "refs/heads/main")
    code.pushed("two")
    code.refused(ref)


def test_a_branch_that_origin_has_deleted_is_refused(code: Code) -> None:
    code.git("checkout", "-q", "-b", "feature/a")
    sha = code.pushed("feature")
    run_git(code.work, "clone", "--quiet", "--bare", f"file://{code.bare}", str(code.clone))
    assert code.fetched("feature/a") == sha
    code.git("push", "-q", "origin", ":feature/a")
    code.refused("feature/a")
    code.refused("heads/feature/a")
    code.git("push", "-q", "origin", "HEAD:refs/heads/feature")  # where a folder was
    assert code.fetched("feature") == sha


def test_a_tag_is_where_origin_has_it_now(code: Code) -> None:
    first = code.git("rev-parse", "HEAD")
    code.git("tag", "-a", "v1", "-m", "v1")
    second = code.pushed("two")
    for ref in ("v1", "tags/v1", "refs/tags/v1"):
        assert code.fetched(ref) == first
    code.git("tag", "-f", "v1")
    code.git("push", "-q", "--force", "--tags", "origin")
    assert code.fetched("v1") == second
    code.git("push", "-q", "origin", ":refs/tags/v1")
    code.refused("v1")


def test_a_commit_is_one_that_origin_still_has(code: Code) -> None:
    first = code.git("rev-parse", "HEAD")
    second = code.pushed("two")
    for ref in (first, first[:8], first[:8].upper(), f"{second[:8]}~1", "main~1", "main^"):
        assert code.fetched(ref) == first
    code.refused("main~2")
    code.refused("0" * 40)
    code.git("reset", "-q", "--hard", first)
    code.git("push", "-q", "--force", "origin", "main")
    assert run_git(code.clone, "cat-file", "-t", second) == "commit"  # it still is in the clone
    code.refused(second)
    code.refused(second[:8])
    code.git("tag", "kept", second)
    code.git("push", "-q", "--tags", "origin")
    assert code.fetched(second[:8]) == second


def test_a_branch_of_the_clone_is_no_commit_of_that_name(code: Code) -> None:
    first = code.fetched()
    run_git(code.clone, "branch", "beef1234", first)
    code.refused("beef1234")


@pytest.mark.parametrize("branch", ["feat/ünï-ß", "we,ird!", "fix(ui)/#12"])
def test_odd_names_are_branches_too(code: Code, branch: str) -> None:
    code.git("checkout", "-q", "-b", branch)
    sha = code.pushed("odd")
    assert code.fetched(branch) == sha
    assert git.from_checkout(code.host, str(code.work), branch).sha == sha


def test_head_is_what_is_checked_out_here_whatever_origin_calls_so(code: Code) -> None:
    first = code.git("rev-parse", "HEAD")
    second = code.pushed("two")
    code.git("remote", "set-head", "origin", "main")
    code.git("checkout", "-q", "--detach", first)
    assert git.from_checkout(code.host, str(code.work), "HEAD").sha == first
    assert git.from_checkout(code.host, str(code.work), "main").sha == second


def test_a_clone_is_private_and_knows_where_it_is_from(code: Code) -> None:
    code.clone.mkdir(mode=0o755)  # left by a run that was killed
    sha = code.fetched()
    assert code.clone.stat().st_mode & 0o777 == 0o700
    assert code.fetched(url="") == sha


def test_without_an_address_there_is_nowhere_to_fetch_from(code: Code) -> None:
    with pytest.raises(Invalid, match="does not know where to fetch") as caught:
        code.fetched(url="")
    assert "git.url" in caught.value.next_step
    assert not code.clone.exists()


def test_a_wrong_address_changes_nothing(code: Code) -> None:
    wrong = f"file://{code.bare}-is-not-here"
    with pytest.raises(Invalid, match="cannot be fetched"):
        code.fetched(url=wrong)
    assert not code.clone.exists()
    sha = code.fetched()
    config = (code.clone / "config").read_bytes()
    with pytest.raises(Invalid, match="cannot be fetched"):
        code.fetched(url=wrong)
    assert (code.clone / "config").read_bytes() == config
    assert code.fetched(url="") == sha


@dataclass
class Guarded:
    """A repository over HTTP for one user, that looks around whenever it is asked."""

    url: str
    commands: set[str] = field(default_factory=set)

    def with_login(self, login: str) -> str:
        return self.url.replace("://", f"://{login}@")


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder to who knows the password."""

    guarded: Guarded
    login = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()

    def do_GET(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.guarded.commands.add(path.read_bytes().decode(errors="replace"))
            except OSError:  # it has ended
                continue
        if self.headers["Authorization"] == f"Basic {self.login}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="code"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def guarded(bare: Path) -> Iterator[Guarded]:
    run_git(bare, "update-server-info")

    class Mine(Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Mine, directory=str(bare))) as server:
        Mine.guarded = Guarded(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Mine.guarded
        finally:
            server.shutdown()
            thread.join()


def test_a_password_is_told_to_origin_alone(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with guarded(code.bare) as server:
        url = server.with_login(f"ann:{QUOTED}")
        assert code.fetched(url=url) == code.git("rev-parse", "HEAD")
        with pytest.raises(Invalid, match="cannot be fetched"):
            code.fetched(url=server.with_login("ann:wrong"))
        with pytest.raises(Invalid, match="cannot be fetched"):
            code.fetched(url="")  # the clone keeps the address, and no password
        assert server.url.rstrip("/") in (code.clone / "config").read_text()
    kept = b"".join(path.read_bytes() for path in code.clone.rglob("*") if path.is_file())
    commands = "\n".join(server.commands)
    assert "git-remote-http" in commands
    for text in (commands, kept.decode(errors="replace"), code.host.log.take().decode()):
        assert "planted" not in text


def test_a_password_that_the_clone_has_kept_goes_the_same_way(
    code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    code.fetched()
    with guarded(code.bare) as server:
        url = server.with_login(f"ann:{QUOTED}")
        run_git(code.clone, "config", "remote.origin.url", url)
        server.commands.clear()
        assert code.fetched(url="") == code.git("rev-parse", "HEAD")
        assert "planted" not in "\n".join(server.commands)
        run_git(code.clone, "config", "remote.origin.url", server.with_login("planted" * 5))
        with pytest.raises(Invalid, match="cannot be fetched"):  # a token, and a wrong one
            code.fetched(url="")
    assert "planted" not in code.host.log.take().decode()


def test_a_full_disk_while_fetching_is_said_and_not_kept_full(code: Code, tmp_path: Path) -> None:
    code.fetched()
    with small_disk(tmp_path / "small", "1m") as folder:
        clone = Code(code.work, code.bare, folder / "repo", code.host)
        clone.fetched()
        before = sum(path.stat().st_size for path in clone.clone.rglob("*") if path.is_file())
        with (code.work / "big").open("wb") as big, Path("/dev/urandom").open("rb") as chance:
            big.write(chance.read(3_000_000))
        code.pushed("much")
        with pytest.raises(DeployFailed, match="The disk of local is full") as caught:
            clone.fetched()
        after = sum(path.stat().st_size for path in clone.clone.rglob("*") if path.is_file())
        assert after < before + 10_000
    assert short(caught.value)


def test_a_full_disk_while_exporting_is_said_in_a_line(code: Code, tmp_path: Path) -> None:
    for number in range(200):
        (code.work / f"file-{number}").write_bytes(b"x" * 20_000)
    sha = code.commit("many")
    with small_disk(tmp_path / "small", "1m") as folder:
        with pytest.raises(DeployFailed, match="The disk of local is full") as caught:
            git.export(code.host, str(code.work), sha, code.host, str(folder / "r1" / "source"))
        assert caught.value.where == f"local:{folder}/r1/source"
    assert short(caught.value)


def short(failure: Failure) -> bool:
    text = failure.as_text()
    return len(text.splitlines()) == 2 and "df -h" in failure.next_step
