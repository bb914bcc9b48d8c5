"""Reads the settings: from the environment and from a `.env` file in the working directory. The environment wins.

A bad value is one line that names variable, value and remedy (`ConfigurationError`), never a traceback.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

from pydantic import AfterValidator, SecretStr, ValidationError

from relay.errors import ConfigurationError
from relay.settings import env_file, variable_names
from relay.settings.model import HttpUrl, Settings
from relay.settings.values import http_url, without_what_may_be_secret
from relay.text import escaped, is_text

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def _is_url(field: FieldInfo) -> bool:
    """True if the field's type is `HttpUrl`, or that or None: pydantic keeps the first kind's validator apart."""
    checked_by = [one.func for one in field.metadata if isinstance(one, AfterValidator)]
    return HttpUrl in get_args(field.annotation) or http_url in checked_by


_SECRETS = frozenset(name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation))
_URLS = frozenset(name for name, field in Settings.model_fields.items() if _is_url(field))


def load_settings(**overrides: Any) -> Settings:
    """The settings from environment, `.env` and `overrides` (which win; None means not given).

    The environment wins over `.env`. Letter case does not matter, and an empty value is one that is not given.

    Raises:
        ConfigurationError: a value is bad, one line for each bad variable; or `.env` cannot be read.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    found = _read() | given
    if broken := [name.upper() for name, value in found.items() if isinstance(value, str) and not is_text(value)]:
        raise ConfigurationError("\n".join(f"{name}: holds bytes that are not UTF-8 text" for name in broken))
    try:
        return Settings(**found)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(item, given) for item in error.errors())) from None


def _read() -> dict[str, Any]:
    """What `.env` and the environment say of each field.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    found: dict[str, Any] = {}
    for source in (env_file.values(_variables()), os.environ):
        found |= {name.lower(): value for name, value in source.items() if value}
    return {name: found[name] for name in Settings.model_fields if name in found}


def near_misses() -> list[tuple[str, str]]:
    """The names in environment and `.env` that are not read although they are nearly a variable's, each with that one.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    return variable_names.near_misses([*os.environ, *env_file.names()], _variables())


def _variables() -> set[str]:
    return {name.upper() for name in Settings.model_fields}


def _explain(item: Any, given: dict[str, Any]) -> str:
    """`CHATWOOT_WEBHOOK_MAX_ATTEMPTS=0: must be at least 1`, from one of pydantic's errors."""
    field = str(item["loc"][0])
    reason = str(item["msg"]).removeprefix("Value error, ")
    reason = reason.replace("Input should be", "must be", 1).partition(", unable to")[0]
    if field in _SECRETS:
        return f"{field.upper()}: {reason}"
    value = str(given.get(field, item.get("input", "")))
    if field in _URLS:
        value = without_what_may_be_secret(value)
    return f"{field.upper()}={escaped(value)}: {reason}"
