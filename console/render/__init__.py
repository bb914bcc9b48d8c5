"""Pure functions from data to `Content`. No widget and no query."""
