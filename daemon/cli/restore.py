"""`lte restore`: a backup put into a state directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json

app = typer.Typer(add_completion=False)


@app.command()
def restore(
    backup: Annotated[Path, typer.Argument(help="A file that `lte backup` wrote.", show_default=False)],
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", help="The directory to restore into.", show_default="state_dir"),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove the store that is there already.")
    ] = False,
    config: ConfigFile = None,
    json_: Json = False,
) -> None:
    """Put a backup into a state directory; the next `lte serve` there reads on from the backup's offsets.

    Every page is held against its checksum before anything is touched. No daemon may run on the directory,
    and a store that is there already is refused without --replace.

    Example: lte restore /backups/edits-monday.db --state-dir /var/lib/lte/state
    """
    from daemon.config import load
    from lte_runtime.memory.edit_memory import STORE_FILE
    from lte_runtime.private_files import UMASK
    from lte_runtime.store.backup import restore_backup

    store = (state_dir or load(config).settings.state_dir) / STORE_FILE
    os.umask(UMASK)
    summary = restore_backup(backup, store, replace=replace)
    offsets = {
        f"{topic_id}/{partition}": next_ for (topic_id, partition), next_ in summary.next_offsets.items()
    }
    report = {
        "store": str(store),
        "edits": summary.edits,
        "current_facts": summary.current_facts,
        "state_hash": summary.state_hash,
    }
    if json_:
        output.as_json(report | {"next_offsets": offsets})
    else:
        output.pairs(
            report | {"next offsets": ", ".join(f"{place}: {n}" for place, n in sorted(offsets.items()))}
        )
