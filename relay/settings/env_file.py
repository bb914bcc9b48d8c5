"""Reads the `.env` file in the working directory. What is wrong with it is one line."""

from __future__ import annotations

import io
import re
from pathlib import Path

from relay.errors import ConfigurationError

FILE = ".env"
_NAME = re.compile(r"^[ \t]*(?:export[ \t]+)?'?([A-Za-z_][\w.-]*)'?[ \t]*=", re.MULTILINE)


def names() -> list[str]:
    """The names that the file sets; none if there is no file.

    Raises:
        ConfigurationError: the file cannot be read, or holds bytes that are no text.
    """
    return _NAME.findall(_text())


def values() -> dict[str, str]:
    """The values that the file gives, by name; those of `names`.

    Raises:
        ConfigurationError: the file cannot be read, or holds bytes that are no text.
    """
    text = _text()
    if not text:
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 - most starts have no such file

    return {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value is not None}


def _text() -> str:
    path = Path(FILE)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    except OSError as error:
        why = f"{FILE}: cannot be read ({error.strerror}); make it readable, or remove it"
        raise ConfigurationError(why) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(content[: error.start]) from None
    if "\0" in text:
        raise _not_text(content[: content.index(b"\0")])
    return text


def _not_text(before: bytes) -> ConfigurationError:
    line = before.count(b"\n") + 1
    return ConfigurationError(f"{FILE}: line {line} holds bytes that are not UTF-8 text; save the file as UTF-8")
