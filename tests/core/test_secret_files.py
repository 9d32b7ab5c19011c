"""Settings from files, as Docker, Kubernetes and systemd hand out secrets."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from pricebook.core.secret_files import SecretFilesError
from pricebook.core.settings import Settings, load_settings

DATABASE, REDIS = "postgresql+asyncpg://u:p@h/d", "redis://h"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PRICEBOOK_SECRETS_DIR", str(tmp_path))
    (tmp_path / "PRICEBOOK_DATABASE_URL").write_text(f"{DATABASE}\n")
    (tmp_path / "pricebook_redis_url").write_text(REDIS)
    return tmp_path


def test_each_file_is_the_setting_of_its_name(folder: Path) -> None:
    (folder / "pricebook_mail__url").write_text("smtp://u:p@mail.example.com\n")
    (folder / "PRICEBOOK_FILES__OPTIONS").write_text('{"aws_access_key_id": "one"}')
    read = Settings()
    assert read.database_url == SecretStr(DATABASE)
    assert read.redis_url == SecretStr(REDIS)
    assert read.mail.url == SecretStr("smtp://u:p@mail.example.com")
    assert read.files.options == {"aws_access_key_id": SecretStr("one")}


def test_the_environment_goes_before_files_and_adds_to_their_groups(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pricebook_mail__url").write_text("smtp://mail.example.com")
    monkeypatch.setenv("PRICEBOOK_MAIL__SENDER", "prices@example.com")
    monkeypatch.setenv("PRICEBOOK_REDIS_URL", "redis://elsewhere")
    read = Settings()
    assert read.redis_url == SecretStr("redis://elsewhere")
    assert read.mail.url == SecretStr("smtp://mail.example.com")
    assert read.mail.sender == "prices@example.com"


def test_files_of_others_and_empty_ones_say_nothing(folder: Path) -> None:
    (folder / "..data").mkdir()
    (folder / "tls.key").write_bytes(b"\xff")
    (folder / "pricebook_mail__url").write_text("\n")
    (folder / "pricebook_secret_key").symlink_to(folder / "nowhere")
    assert Settings().mail.url is None


def test_a_folder_that_is_not_there_is_said_in_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICEBOOK_SECRETS_DIR", str(folder / "nowhere"))
    load_settings.cache_clear()
    with pytest.raises(SecretFilesError, match=r"nowhere: No such file.*PRICEBOOK_SECRETS_DIR"):
        load_settings()


def test_what_is_no_text_is_not_shown(folder: Path) -> None:
    (folder / "pricebook_secret_key").write_bytes(b"hidden\xff")
    with pytest.raises(SecretFilesError) as refused:
        Settings()
    assert "hidden" not in repr(refused.value)
