"""The SQL of the spool's file (SQLite). `relay.store.spool_file` runs it."""

from __future__ import annotations

VERSION = 1
"""`user_version` of the file, as `SCHEMA` sets it."""

SCHEMA = """
    BEGIN IMMEDIATE;
    CREATE TABLE receipts (
        seq          INTEGER PRIMARY KEY AUTOINCREMENT,
        target       TEXT NOT NULL,       -- the database that it is for, see `databases`
        arrival      INTEGER NOT NULL,    -- its place among the others: when it was received, in microseconds
        delivery_id  TEXT NOT NULL,
        order_key    TEXT,                -- its conversation; NULL: it takes part in no order
        signature    TEXT,
        claim        TEXT NOT NULL,
        size         INTEGER NOT NULL,
        refused      TEXT,                -- why Postgres refuses this receipt alone
        fields       TEXT NOT NULL,       -- all else but the bodies, as JSON
        body         BLOB NOT NULL,
        encoded_body BLOB,
        UNIQUE (target, delivery_id)
    );
    CREATE UNIQUE INDEX receipts_signature ON receipts (target, signature) WHERE signature IS NOT NULL;
    CREATE INDEX receipts_conversation ON receipts (target, order_key) WHERE order_key IS NOT NULL;
    CREATE INDEX receipts_arrival ON receipts (target, arrival, seq);

    -- How many receipts there are and what they weigh, kept by the triggers below.
    CREATE TABLE totals (target TEXT PRIMARY KEY, receipts INTEGER NOT NULL, bytes INTEGER NOT NULL);
    CREATE TRIGGER count_appended AFTER INSERT ON receipts BEGIN
        INSERT INTO totals VALUES (new.target, 1, new.size)
            ON CONFLICT (target) DO UPDATE SET receipts = receipts + 1, bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER count_removed AFTER DELETE ON receipts BEGIN
        UPDATE totals SET receipts = receipts - 1, bytes = bytes - old.size WHERE target = old.target;
    END;
    CREATE TRIGGER count_renamed AFTER UPDATE OF target ON receipts BEGIN
        UPDATE totals SET receipts = receipts - 1, bytes = bytes - old.size WHERE target = old.target;
        INSERT INTO totals VALUES (new.target, 1, new.size)
            ON CONFLICT (target) DO UPDATE SET receipts = receipts + 1, bytes = bytes + excluded.bytes;
    END;

    -- The name that the database at an address gave itself. Until it is known, receipts are for the address.
    CREATE TABLE databases (address TEXT PRIMARY KEY, target TEXT NOT NULL);
    CREATE TABLE probe (bytes BLOB NOT NULL);
    CREATE TABLE spool (id TEXT NOT NULL);
    INSERT INTO spool VALUES (lower(hex(randomblob(16))));
    PRAGMA user_version = 1;
    COMMIT;
"""

TARGET = "SELECT target FROM databases WHERE address = ?"
NAME_TARGET = "INSERT OR REPLACE INTO databases VALUES (:address, :name)"
RENAME = "UPDATE OR IGNORE receipts SET target = :name WHERE target = :address"
REMOVE_KNOWN = "DELETE FROM receipts WHERE target = :address"
NAMING = (NAME_TARGET, RENAME, REMOVE_KNOWN)
NAMES = "SELECT address, target FROM databases"

KNOWN = """
    SELECT claim, delivery_id FROM receipts
     WHERE target = :target AND (delivery_id = :delivery_id OR signature = :signature) LIMIT 1
"""
# A receipt that Postgres refuses by itself delays no later one of its conversation.
HELD = """
    SELECT EXISTS (SELECT 1 FROM receipts WHERE target = :target AND delivery_id = :delivery_id)
        OR EXISTS (SELECT 1 FROM receipts WHERE target = :target AND signature = :signature)
        OR EXISTS (SELECT 1 FROM receipts WHERE target = :target AND order_key = :order_key AND refused IS NULL)
"""
# The place is the time of arrival, so that the order does not depend on which worker appended first. A time that is
# more than ten seconds before the last one's means that the clock was set back: then the order of appending counts.
APPEND = """
    INSERT INTO receipts (target, arrival, delivery_id, order_key, signature, claim, size, fields, body, encoded_body)
    SELECT :target, CASE WHEN :at < last.arrival - 10000000 THEN last.arrival ELSE :at END,
           :delivery_id, :order_key, :signature, :claim, :size, :fields, :body, :encoded_body
      FROM (SELECT coalesce(max(arrival), 0) AS arrival FROM receipts WHERE target = :target) AS last
"""

ROW = "seq, claim, delivery_id, order_key, signature, fields, body, encoded_body, refused"
PAGE = f"""
    SELECT {ROW} FROM receipts WHERE target = :target AND (refused IS NOT NULL) = :refused ORDER BY arrival, seq
"""  # noqa: S608 - constants
AFTER = f"SELECT {ROW} FROM receipts WHERE target = :target AND seq > :seq ORDER BY seq LIMIT 100"  # noqa: S608 - constants
REMOVE = "DELETE FROM receipts WHERE seq = ? AND claim = ?"
SET_REFUSED = "UPDATE receipts SET refused = ? WHERE seq = ? AND claim = ?"

_COLUMNS = "target, arrival, delivery_id, order_key, signature, claim, size, refused, fields, body, encoded_body"
ALL = f"SELECT {_COLUMNS} FROM receipts ORDER BY seq"  # noqa: S608 - constants
COPY = f"INSERT OR IGNORE INTO receipts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants

BYTES = "SELECT coalesce(sum(bytes), 0) FROM totals"
IS_EMPTY = "SELECT NOT EXISTS (SELECT 1 FROM receipts)"
STATE = """
    SELECT (SELECT id FROM spool) AS id,
           coalesce(sum(receipts) FILTER (WHERE target = :target), 0) AS receipts, coalesce(sum(bytes), 0) AS bytes,
           coalesce(sum(receipts) FILTER (WHERE target <> :target), 0) AS "foreign",
           (SELECT count(*) FROM receipts WHERE target = :target AND refused IS NOT NULL) AS refused,
           (SELECT min(arrival) FROM receipts WHERE target = :target) AS oldest
      FROM totals
"""
