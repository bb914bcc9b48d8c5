"""`console` and `python -m console`. Imports the app late, so that ctrl+c works in the meantime."""

import sys


def main() -> None:
    """Run the command; see `console.cli`."""
    try:
        from console import cli  # noqa: PLC0415

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
