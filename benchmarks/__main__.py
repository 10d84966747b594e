"""Where the command `zoo` begins, and `python -m benchmarks`. All else is imported below, so that a Ctrl-C meanwhile is
answered as one at any other time."""

from __future__ import annotations

import sys

from benchmarks.commands.exit_codes import INTERRUPTED


def main() -> None:
    """As `benchmarks.cli.main`."""
    try:
        from benchmarks import cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("zoo: stopped.\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
