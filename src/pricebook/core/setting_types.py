"""The types of settings: what a value must look like, said in words where it does not."""

import re
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from pricebook.core.database_urls import normal_url

_KEY_LENGTH = 32


def _database_url(url: SecretStr) -> SecretStr:
    return SecretStr(normal_url(url.get_secret_value()))


def _redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        message = "must begin with redis://, rediss:// or unix://"
        raise ValueError(message)
    return url


def _mail_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("smtp://", "smtps://", "file:///")):
        message = "must begin with smtp://, smtps:// or file:///"
        raise ValueError(message)
    try:
        urlsplit(url.get_secret_value()).port  # noqa: B018 -- it is read to see whether it can be
    except ValueError:
        # That error would show what stands there, which may be a password.
        message = "must have a number for its port; in a password, write @ : / as %40 %3A %2F"
        raise ValueError(message) from None
    return url


def _address(sender: str) -> str:
    is_address = re.fullmatch(r"[^\s@]+@[^\s@]+", parseaddr(sender)[1])
    if not is_address or not sender.isprintable():
        message = "must be an address, such as Pricebook <prices@shop.example.com>"
        raise ValueError(message)
    return sender


def _files_url(url: str) -> str:
    if not re.match(r"^(file:///|s3://|gs://|az://)", url):
        message = "must begin with file:///, s3://, gs:// or az://"
        raise ValueError(message)
    return url


def _long_enough(keys: SecretStr) -> SecretStr:
    if any(len(key.strip()) < _KEY_LENGTH for key in keys.get_secret_value().split(",")):
        message = f"each key must have {_KEY_LENGTH} characters or more"
        raise ValueError(message)
    return keys


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
MailUrl = Annotated[SecretStr, AfterValidator(_mail_url)]
FilesUrl = Annotated[str, AfterValidator(_files_url)]
SecretKeys = Annotated[SecretStr, AfterValidator(_long_enough)]
Network = IPv4Network | IPv6Network
PositiveSeconds = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Delays = Annotated[tuple[PositiveSeconds, ...], Field(min_length=1)]
MailAddress = Annotated[str, AfterValidator(_address)]
