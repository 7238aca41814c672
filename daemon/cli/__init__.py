"""The `lte` command: a thin client of the daemon. Command modules are imported when they are called."""

from __future__ import annotations


def main() -> None:
    """Console entry point; ends the process with one of `daemon.cli.exits`."""
    import os
    import sys

    # Read by numpy when it is imported. The products here are small, and BLAS would spread each over all
    # cores and wait for the slowest: 10 ms instead of 0.1 on a busy machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from daemon.cli.app import run

        run()
    except KeyboardInterrupt:
        # Ctrl-C while the imports run; later ones are handled where they happen.
        sys.exit(130)
