"""hotdash-relay: takes Chatwoot's webhooks, stores them, forwards them to the Agent SDK, loses none."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hotdash-relay")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
