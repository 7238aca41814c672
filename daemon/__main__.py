"""`python -m daemon` is `lte`."""

from daemon.cli import main

main()
