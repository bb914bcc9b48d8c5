"""What can go wrong with the spool's file, and SQLite's codes for it."""

from __future__ import annotations

import errno
import sqlite3

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}
"""Codes after which the file is as good as before."""


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


class Replaced(Exception):
    """The file was removed or replaced while a transaction wrote to it."""


class Damaged(sqlite3.DatabaseError):
    """The file holds something else than SQLite wrote."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
