"""The settings, and the list of them that operators copy."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from pricebook.core.settings import Settings
from pricebook.core.settings_example import settings_example

ROOT = Path(__file__).parents[2]


def test_the_example_file_names_every_setting_with_its_default() -> None:
    """`pricebook settings-example > deploy/.env.example` brings it up to date."""
    assert (ROOT / "deploy" / ".env.example").read_text() == settings_example()


def test_the_defaults_in_the_example_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in settings_example().splitlines():
        if line.startswith("#PRICEBOOK_"):
            monkeypatch.setenv(*line.removeprefix("#").split("=", 1))
    from_example = Settings()
    monkeypatch.undo()
    assert from_example == Settings()


@pytest.mark.parametrize("given", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_url_may_be_spelled_as_usual(given: str) -> None:
    settings = Settings(
        database_url=SecretStr(f"{given}://u:p@h/d"), redis_url=SecretStr("redis://h")
    )
    assert settings.database_url == SecretStr("postgresql+asyncpg://u:p@h/d")


def test_one_server_without_the_other_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRICEBOOK_DATABASE_URL", "postgresql://user:hidden-password@host/name")
    with pytest.raises(ValidationError, match="set both") as refused:
        Settings()
    assert "hidden-password" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PROCESSES", "0"),
        ("STOP_SECONDS", "0"),
        ("AUTH__UNKNOWN", "1"),
        ("HTTP__TRUSTED_PROXIES", '["10.0.0.0/99"]'),
        ("MAIL__URL", "imap://mail.example.com"),
        ("MAIL__SENDER", "Pricebook"),
        ("MAIL__SENDER", "Eve\r\nBcc: eve@example.com <prices@example.com>"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"PRICEBOOK_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_a_mail_url_whose_password_is_not_encoded_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRICEBOOK_MAIL__URL", "smtp://ann:pass/hidden@mail.example.com")
    with pytest.raises(ValidationError, match="write @") as refused:
        Settings()
    assert "pass" not in str(refused.value).replace("password", "")
