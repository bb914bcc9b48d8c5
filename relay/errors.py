"""Every error that this package raises on purpose. Each message says what an operator can do.

RelayError
├── ConfigurationError   a setting is wrong: which, and why
├── StoreUnavailable     Postgres is away or does not answer in time; try again
│   ├── StatementRefused Postgres cancelled or refused this one statement
│   └── EarlierFirst     an earlier receipt of the conversation must be stored first
├── SpoolError           the spool does not take a receipt
│   ├── SpoolFull        RELAY_SPOOL_MAX_BYTES or the disk is full
│   └── SpoolUnwritable  its file cannot be written
├── SchemaError          the database is not one this version can use
│   └── FactsRefused     it stores webhooks, but `dashboard_facts` does not take facts
├── Refused              the database refuses a request: why
├── LeaseLost            another relay may own this delivery by now; stop
└── FilterError          a filter that does not parse
"""


class RelayError(Exception):
    """The root: catch this to catch everything the relay raises on purpose."""


class ConfigurationError(RelayError):
    """A setting is wrong. The message names the variable, the value and the remedy in one line."""


class StoreUnavailable(RelayError):
    """Postgres did not commit, or did not answer in time. Nothing may be assumed stored."""


class StatementRefused(StoreUnavailable):
    """Postgres is there, but cancelled or refused one statement. Nothing of it was stored.

    The message holds the SQLSTATE and names, never a row's values.
    """


class EarlierFirst(StoreUnavailable):
    """An earlier receipt of the same conversation was not stored: it must be first. Nothing was tried."""


class SpoolError(RelayError):
    """The spool did not take a receipt. Nothing may be assumed stored."""


class SpoolFull(SpoolError):
    """The spool, or its disk, has no room for a receipt.

    `holds` is how many bytes the spool held then, None if it is the disk that is full.
    """

    def __init__(self, message: str, holds: int | None = None) -> None:
        super().__init__(message)
        self.holds = holds


class SpoolUnwritable(SpoolError):
    """The spool's file cannot be opened or written. The message says why."""


class SchemaError(RelayError):
    """The database's tables are not ones that this version can work on."""


class FactsRefused(SchemaError):
    """The database stores and finishes deliveries, but `dashboard_facts` does not take what the relay records.

    `reason` and `remedy` are for operators, without a full stop.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. Remedy: {remedy}. Then start the relay again")
        self.reason = reason
        self.remedy = remedy


class Refused(RelayError):
    """The database refuses an operator's request. The message says why and quotes no value."""


class LeaseLost(RelayError):
    """This relay's lease expired: another relay may have claimed the delivery, so this one must stop."""


class FilterError(RelayError):
    """A filter string that does not parse. The message quotes the part that is wrong."""
