"""Every error this package raises on purpose. Each message tells an operator what to do next.

RelayError
├── ConfigurationError   a setting is wrong: which, and why
├── StoreUnavailable     Postgres cannot take or give it now; try again
│   └── StatementRefused Postgres is there, and cancelled or refused this one statement
├── SchemaError          the database is not one this version can use
├── Refused              the database refuses what was asked: why
├── LeaseLost            another relay may own this delivery by now; stop
├── Overloaded           as much is in flight as may be
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


class SchemaError(RelayError):
    """The database's tables are not ones that this version can work on."""


class Refused(RelayError):
    """The database refuses what an operator asked for. The message says why and quotes no value."""


class LeaseLost(RelayError):
    """This relay's lease ran out: another relay may have taken the delivery over, so it must stop."""


class Overloaded(RelayError):
    """`RELAY_MAX_IN_FLIGHT` or the room for bodies is reached; nothing was stored and the sender must try again."""


class FilterError(RelayError):
    """A filter string that does not parse. The message quotes the part that is wrong."""
