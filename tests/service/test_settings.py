"""Settings from the environment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruners.errors import InvalidInput
from service.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("PORT", "abc", "SECATEUR_PORT 'abc' should be a valid integer"),
        ("PORT", "70000", "SECATEUR_PORT '70000' should be less than 65536."),
        ("MAX_RUNNING_JOBS", "0", "SECATEUR_MAX_RUNNING_JOBS '0' should be greater than or equal to 1."),
        ("RAY_ADDRESS", "ray://head:10001", "give the dashboard's address, such as http://head:8265."),
        ("RAY_DASHBOARD", "head:8265", "give the dashboard's address, such as http://head:8265."),
        ("STORE", "gs://bucket", "give a folder, or s3://BUCKET or s3://BUCKET/PREFIX."),
        ("STORE", "s3://Bucket", "give a folder, or s3://BUCKET or s3://BUCKET/PREFIX."),
        ("STORE", "s3://bucket/../other", "give a folder, or s3://BUCKET or s3://BUCKET/PREFIX."),
        ("TOKEN", "  ", "a blank token would let everybody in"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, part: str) -> None:
    monkeypatch.setenv(f"SECATEUR_{name}", value)
    with pytest.raises(InvalidInput) as refused:
        Settings.load()
    assert part in str(refused.value)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_TOKEN", "the-secret")
    assert "the-secret" not in repr(Settings.load())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_chosen_token(host: str) -> None:
    settings = Settings.load(host=host)
    settings.check_exposure()
    assert settings.token is None


@pytest.mark.parametrize("host", ["::", "192.168.0.1", "10.0.0.3", "example.org", "localhost.example.org", ""])
def test_other_addresses_need_a_chosen_token(host: str) -> None:
    with pytest.raises(InvalidInput, match="set SECATEUR_TOKEN"):
        Settings.load(host=host).check_exposure()
    Settings.load(host=host, token="chosen").check_exposure()


def test_paths_are_absolute_since_jobs_start_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(data_dir="here", store="there")
    assert (settings.data_dir, settings.store_at) == (tmp_path / "here", str(tmp_path / "there"))
