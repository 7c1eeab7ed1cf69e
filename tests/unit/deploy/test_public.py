"""What the application may read about its deployments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import public

RECORD = {
    "id": "2026-01-01_00-00-00",
    "kind": "deploy",
    "outcome": "success",
    "code": 0,
    "sha": "a" * 40,
    "ref": "main",
    "release": "r1",
    "started": "2026-01-01T00:00:00+00:00",
    "seconds": 12.5,
    "who": "ann",
}
BACKUP = {"at": "2026-01-01T00:00:00+00:00", "state": "good", "bytes": 3}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from((*RECORD, *BACKUP)),
            inner,
            max_size=12,
        ),
    ),
    max_leaves=30,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("records", "backups"):
        (tmp_path / name).mkdir()
    return tmp_path


def run(root: Path, name: str, **more: Any) -> None:
    record = {**RECORD, "id": name, "warnings": ["not told"], **more}
    (root / "records" / f"{name}.json").write_text(json.dumps(record))


def save(root: Path, name: str, at: str, **more: Any) -> None:
    (root / "backups" / name).write_text("abc")
    manifest = {**BACKUP, "name": name, "at": at, "rows": 3, **more}
    (root / "backups" / f"{name}.json").write_text(json.dumps(manifest))


def told(root: Path) -> tuple[Any, Any]:
    public.write(root)
    names = ("history.json", "backup.json")
    history, backup = (json.loads((root / "public" / name).read_text()) for name in names)
    return history, backup


def test_the_newest_runs_are_told_newest_first_and_no_more_of_them(root: Path) -> None:
    for number in range(30):
        run(root, f"2026-01-{number + 1:02}_00-00-00", who="x" * 999)
    history, _ = told(root)
    assert [item["id"][8:10] for item in history] == [f"{n:02}" for n in range(30, 10, -1)]
    assert set(history[0]) == set(RECORD)
    assert len(history[0]["who"]) == 200


def test_of_the_backups_the_newest_good_one_is_told(root: Path) -> None:
    assert told(root)[1] is None
    save(root, "a.sql.gz", "2026-01-01T00:00:00+00:00")
    save(root, "b.sql.gz", "2026-01-02T01:00:00+02:00")
    save(root, "c.sql.gz", "2026-01-03T00:00:00+00:00", state="damaged")
    save(root, "d.sql.gz", "2026-01-03T00:00:00+00:00", bytes=4)
    save(root, "e.sql.gz", "2026-01-03T00:00:00")
    save(root, "f.sql.gz", "never")
    (root / "backups/g.sql.gz.json").write_text((root / "backups/b.sql.gz.json").read_text())
    assert told(root)[1] == {
        "name": "b.sql.gz",
        "at": "2026-01-02T01:00:00+02:00",
        "state": "good",
        "bytes": 3,
    }


def test_everybody_may_read_it_and_nobody_sees_half_of_it(root: Path) -> None:
    (root / "public").mkdir(mode=0o700)
    run(root, "2026-01-01_00-00-00")
    public.write(root)
    before = (root / "public/history.json").stat().st_ino
    public.write(root)
    found = {item.name: item.stat() for item in (root / "public").iterdir()}
    assert set(found) == {"history.json", "backup.json"}
    assert found["history.json"].st_ino != before
    assert {item.st_mode & 0o777 for item in found.values()} == {0o644}
    assert (root / "public").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("wrong", [None, {}, ["ann"]])
def test_a_run_that_is_garbled_is_left_out(root: Path, wrong: Any) -> None:
    run(root, "2026-01-01_00-00-00")
    run(root, "2026-01-02_00-00-00", who=wrong)
    assert [item["id"] for item in told(root)[0]] == ["2026-01-01_00-00-00"]


def test_a_host_without_a_run_has_none_to_tell(tmp_path: Path) -> None:
    assert told(tmp_path) == ([], None)


@given(st.lists(st.one_of(JSON.map(json.dumps), st.text()), max_size=4))
def test_garbage_tells_nothing_and_stops_nothing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    for name in ("records", "backups"):
        (root / name).mkdir()
    for number, text in enumerate(texts):
        data = text.encode(errors="replace")
        (root / f"records/2026-01-0{number + 1}_00-00-00.json").write_bytes(data)
        (root / f"backups/{number}.sql.gz.json").write_bytes(data)
        (root / f"backups/{number}.sql.gz").write_bytes(b"abc")
    run(root, "2026-01-09_00-00-00")
    save(root, "z.sql.gz", "9000-01-01T00:00:00+00:00")
    history, backup = told(root)
    assert history[0]["id"] == "2026-01-09_00-00-00"
    assert backup["name"] == "z.sql.gz"


def test_what_cannot_be_written_leaves_what_was_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, "2026-01-01_00-00-00")
    public.write(root)
    (root / "public/history.json").unlink()
    (root / "public/history.json").mkdir()
    with pytest.raises(IsADirectoryError):
        public.write(root)
    assert sorted(item.name for item in (root / "public").iterdir()) == [
        "backup.json",
        "history.json",
    ]
