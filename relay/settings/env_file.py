"""Reads the `.env` file in the working directory. What is wrong with it is one line."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from relay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection

FILE = ".env"
_NAME = re.compile(r"^[ \t]*(?:export[ \t]+)?'?([A-Za-z_][\w.-]*)'?[ \t]*=", re.MULTILINE)


def names() -> list[str]:
    """The names that the file sets; none if there is no file.

    Raises:
        ConfigurationError: the file cannot be read, or holds bytes that are no text.
    """
    return _NAME.findall(_text())


def values(wanted: Collection[str]) -> dict[str, str]:
    """The values that the file gives, by name. A line that cannot be read matters only if it sets one of `wanted`.

    Raises:
        ConfigurationError: the file cannot be read, or holds bytes that are no text; or such a line.
    """
    text = _text()
    if not text:
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 - most starts have no such file
    from dotenv.parser import parse_stream  # noqa: PLC0415 - likewise

    for line in parse_stream(io.StringIO(text)):
        statement = line.original.string.lstrip()
        named = _NAME.match(statement) if line.error else None
        if named is not None and named[1].upper() in wanted:
            number = line.original.line + line.original.string.removesuffix(statement).count("\n")
            raise ConfigurationError(
                f"{FILE}: line {number}: the value of {named[1]} cannot be read; close its quotes, and quote all of it"
            )
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # other lines may be other programs'
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
