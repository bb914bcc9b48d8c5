"""`console` and `python -m console`. Loads the rest within reach of ctrl+c: a terminal toolkit takes its time."""

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
