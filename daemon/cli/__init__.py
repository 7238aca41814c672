"""The `lte` command: a thin client of the daemon. Command modules are imported when they are called."""

from __future__ import annotations


def main() -> None:
    """Console entry point; ends the process with one of `daemon.cli.exits`."""
    import sys

    try:
        from daemon.cli.app import run

        run()
    except KeyboardInterrupt:
        # Ctrl-C while the imports run; later ones are handled where they happen.
        sys.exit(130)
