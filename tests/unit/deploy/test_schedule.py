"""A backup each day: what systemd and cron are told, and what stays of a crontab."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import settings, unattended
from deploy.host import local_host
from deploy.log import RunLog
from deploy.outcome import Invalid
from deploy.redact import Redactor
from deploy.schedule import cron, install, systemd
from deploy.schedule.job import Job
from deploy.settings import Settings

JOB = Job(
    name="shop-backup",
    at="03:30",
    python="/usr/bin/python3",
    library="/opt/shop/schedule/0123456789abcdef",
    plan="/opt/shop/schedule/plan.json",
)
LINE = cron.line(JOB, 0)
TEXTS = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [b"\n", b"# m h dom\n", b"@daily x # a-shop-backup\n", b"x # shop-backups\n"]
        ),
    )
).map(b"".join)


def has_none(table: bytes) -> bool:
    return not any(line.rstrip().endswith(b" # shop-backup") for line in table.splitlines())


@given(TEXTS.filter(has_none))
def test_the_lines_of_others_stay_byte_for_byte(table: bytes) -> None:
    once = cron.merged(table, JOB.name, LINE)
    assert once.startswith(table)
    assert once.removeprefix(table).lstrip(b"\n") == LINE + b"\n"
    assert cron.merged(once, JOB.name, LINE) == once
    assert cron.merged(once, JOB.name, None) in (table, table + b"\n")


@given(TEXTS.filter(has_none), TEXTS.filter(has_none))
def test_a_line_of_ours_is_replaced_where_it_stands(before: bytes, after: bytes) -> None:
    before = cron.merged(before, JOB.name, LINE)  # ends where a line does
    table = before + after
    later = cron.line(Job(**{**vars(JOB), "at": "04:00"}), 0)
    changed = cron.merged(table, JOB.name, later)
    assert changed == table.replace(LINE + b"\n", later + b"\n")
    assert cron.merged(changed, JOB.name, LINE) == table
    assert cron.merged(table, JOB.name, None) == before.removesuffix(LINE + b"\n") + after


def test_of_several_lines_of_ours_one_is_left() -> None:
    table = b"a\n" + LINE + b"\nb\n" + LINE
    assert cron.merged(table, JOB.name, LINE) == b"a\n" + LINE + b"\nb\n"
    assert cron.merged(table, JOB.name, None) == b"a\nb\n"


@pytest.mark.parametrize(
    ("at", "offset", "begins"),
    [
        ("03:30", "+0000", "30 3 * * * cd "),
        ("03:30", "+0545", "15 9 * * * cd "),
        ("03:30", "-0330", "0 0 * * * cd "),
        ("03:30", "-0800", "30 19 * * * cd "),
        ("23:59", "+1400", "59 13 * * * cd "),
        ("00:00", "-1200", "0 12 * * * cd "),
    ],
)
def test_cron_is_told_the_time_of_the_host(at: str, offset: str, begins: str) -> None:
    job = Job(**{**vars(JOB), "at": at})
    assert cron.line(job, cron.minutes(offset)).decode().startswith(begins)


@given(st.integers(0, cron.DAY - 1), st.integers(-14 * 60, 14 * 60))
def test_a_time_on_the_host_is_that_time_in_utc(at: int, offset: int) -> None:
    job = Job(**{**vars(JOB), "at": f"{at // 60:02}:{at % 60:02}"})
    minute, hour = map(int, cron.line(job, offset).split()[:2])
    assert (hour * 60 + minute - offset - at) % cron.DAY == 0


def test_what_cron_starts() -> None:
    words = LINE.decode().split(" ", 5)[5]
    assert words.startswith(f"cd {JOB.library} && PATH=/usr/local/sbin:")
    assert words.endswith(f" {JOB.line} >/dev/null # shop-backup")


def test_a_percent_sign_means_itself() -> None:
    odd = Job(**{**vars(JOB), "library": "/opt/100%"})
    assert rb"cd /opt/100\% &&" in cron.line(odd, 0)
    assert "WorkingDirectory=/opt/100%%\n" in systemd.service(odd)


@pytest.mark.parametrize("python", ["/my python", "/a%b", "/a$b", "/a\nb", "/a;b", "", "/a'b"])
def test_what_would_have_to_be_quoted_is_not_written(python: str) -> None:
    odd = Job(**{**vars(JOB), "python": python})
    with pytest.raises(ValueError, match="not to be written"):
        systemd.service(odd)
    with pytest.raises(ValueError, match="not to be written"):
        cron.line(odd, 0)


def test_what_systemd_starts() -> None:
    service, timer = systemd.service(JOB), systemd.timer(JOB)
    assert f"\nExecStart={JOB.line}\n" in service
    assert f"\nWorkingDirectory={JOB.library}\n" in service
    assert "\nType=oneshot\n" in service
    assert "\nOnCalendar=*-*-* 03:30:00 UTC\n" in timer
    assert "\nPersistent=true\n" in timer


def found(**database: str) -> Settings:
    data = {
        "deploy": {"project": "shop", "title": "Shop", "root": "/opt/shop"},
        "proxy": {"container": "door", "network": "net"},
        "git": {"url": "https://ann:secret-of-git@example.org/shop.git"},
        "database": {"service": "db", **database},
    }
    environ = {"TELEGRAM_API_TOKEN": "123456:secret-of-bot", "MASTER_CHAT_ID": "1"}
    return settings.parse(data, environ, "invoke.yaml")


@pytest.mark.parametrize("at", ["00:00", "03:30", "13:05", "23:59"])
def test_a_time_of_day(at: str) -> None:
    assert found(schedule=at).database.schedule == at
    assert install.scheduled(found(), at).database.schedule == at


@pytest.mark.parametrize(
    "at", ["3:30", "24:00", "03:60", "0330", "03:30:00", "٠٣:٣٠", "03:30\n", "%"]
)
def test_no_time_of_day(at: str) -> None:
    with pytest.raises(Invalid, match=r"database\.schedule|is wrong"):
        found(schedule=at)
    with pytest.raises(Invalid, match="--at must be a time of day"):
        install.scheduled(found(schedule="03:30"), at)


def test_without_a_time_or_a_database_nothing_is_scheduled() -> None:
    with pytest.raises(Invalid, match="No time is set"):
        install.scheduled(found(), "")
    with pytest.raises(Invalid, match="no database"):
        install.scheduled(found(service="", schedule="03:30"), "")
    elsewhere = found(service="", client_image="postgres:17", schedule="03:30")
    assert install.scheduled(elsewhere, "") == elsewhere


def test_the_plan_holds_no_secret() -> None:
    whole = found(schedule="03:30")
    plan = install.plan_of(local_host(RunLog(Redactor(), None)), whole)
    assert "secret-of" not in plan
    told = json.loads(plan)["settings"]
    assert told["database"]["schedule"] == "03:30"
    assert "environment" not in told
    assert "url" not in told["git"]


def test_what_it_takes_to_tell_is_not_shown() -> None:
    known = unattended.environment({"TELEGRAM_API_TOKEN": "123:secret", "MASTER_CHAT_ID": "1"})
    assert known.telegram_token.get_secret_value() == "123:secret"
    assert known.telegram_api_base == "https://api.telegram.org"
    assert "secret" not in repr(known)
