"""hotdash-relay: takes Chatwoot's webhooks, stores them, forwards them to the Agent SDK, loses none."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """`__version__`, found when it is asked for: reading a package's metadata costs more than any other small command.

    Raises:
        AttributeError: the package has no attribute `name`.
    """
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - see above

    try:
        return version("hotdash-relay")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
