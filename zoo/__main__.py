"""`python -m zoo`: what is installed as the command `zoo`. The library itself has no commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the script `zoo` of the installed distribution, whatever that is."""
    try:
        from importlib import metadata

        try:
            (script,) = metadata.distribution("vae-zoo").entry_points.select(group="console_scripts", name="zoo")
        except metadata.PackageNotFoundError:
            sys.exit("zoo: the command is not installed: `pip install -e .` in a checkout does so.")
        script.load()()
    except KeyboardInterrupt:
        sys.stderr.write("zoo: stopped.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
