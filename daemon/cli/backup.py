"""`lte backup`: a copy of the store, also while a daemon runs on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json

app = typer.Typer(add_completion=False)


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(help="The new file.", show_default=False)],
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="The daemon's directory.", show_default="state_dir")
    ] = None,
    config: ConfigFile = None,
    json_: Json = False,
) -> None:
    """Copy the store of facts, offsets and quarantine into one file; a daemon may run on it meanwhile.

    Every page that is read is held against its checksum; only you can read the copy. `lte restore` puts it
    into a state directory. Trained adapters are not in it: they lie in registry.path or registry.url.

    Example: lte backup /backups/edits-monday.db
    """
    from daemon.config import load
    from lte_runtime.memory.edit_memory import STORE_FILE
    from lte_runtime.private_files import UMASK
    from lte_runtime.store.backup import summarise
    from lte_runtime.store.db import copy_store

    settings = load(config).settings
    store = (state_dir or settings.state_dir) / STORE_FILE
    os.umask(UMASK)
    copy_store(store, to)
    report = {
        "store": str(store),
        "copy": str(to),
        "bytes": to.stat().st_size,
        "state_hash": summarise(to).state_hash,
    }
    if json_:
        output.as_json(report)
    else:
        output.pairs(report)
