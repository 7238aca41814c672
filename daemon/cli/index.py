"""`lte index`: check the vector index against the store, rebuild it, or bring keys to this version's form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.exits import FAILED
from daemon.cli.options import AdminSocket, ConfigFile, Json

if TYPE_CHECKING:
    from lte_runtime.store.upgrade import RekeyReport
    from lte_runtime.types import FactKey

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The indexes: verify, rebuild, rekey.")

# A million vectors take minutes; the usual deadline of a call is for questions.
_PATIENT_S = 3600.0
_MOST_JOINED = 1000  # keys that `rekey` lists; all are counted
Patience = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds until the call gives up.")]


@app.command()
def verify(
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Compare the index with the store and with exact search; exit 1 when they differ.

    Example: lte index verify
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        report = daemon.verify_index(timeout_s=timeout)
    if json_:
        output.as_json(report)
    else:
        output.pairs(report | {"problems": "\n".join(report["problems"])})
    if not report["ok"]:
        raise typer.Exit(FAILED)


@app.command()
def rebuild(
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Build the index again from the store; questions go on meanwhile.

    Example: lte index rebuild
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        report = daemon.rebuild_index(timeout_s=timeout)
    if json_:
        output.as_json(report)
    else:
        output.note(f"rebuilt: {report['vectors']} vectors")


@app.command()
def rekey(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which keys would become one.")
    ] = False,
    join_publishers: Annotated[
        bool, typer.Option("--join-publishers", help="Join keys of different publishers too.")
    ] = False,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="The daemon's directory.", show_default="state_dir")
    ] = None,
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """Bring the keys of an earlier version's store to the form of this one; list which keys become one.

    The start of a daemon does the same by itself, unless keys of different publishers would become one key:
    then it is refused, and --join-publishers here says that they may. A copy of the store stays beside it. No
    daemon may run on the directory, except with --dry-run.

    Example: lte index rekey --dry-run
    """
    from daemon.config import load
    from lte_runtime.memory.edit_memory import STORE_FILE
    from lte_runtime.private_files import UMASK
    from lte_runtime.store.upgrade import rekey_report, rekey_store

    store = (state_dir or load(config).settings.state_dir) / STORE_FILE
    os.umask(UMASK)
    report = rekey_report(store) if dry_run else rekey_store(store, join_publishers=join_publishers)
    if json_:
        output.as_json(_rekey_json(report, dry_run))
    else:
        _show_rekey(report, dry_run)


def _rekey_json(report: RekeyReport, dry_run: bool) -> Mapping[str, Any]:
    return {
        "pending": report.pending and dry_run,
        "keys": report.keys,
        "changed": report.changed,
        "joined_count": len(report.joined),
        "across_publishers_count": report.across_publishers,
        "joined": [
            {
                "key": _key_json(joined.key),
                "across_publishers": joined.across_publishers,
                "former": [
                    {
                        "key": _key_json(former.key),
                        "publishers": list(former.publishers),
                        "edits": former.edits,
                    }
                    for former in joined.former
                ],
            }
            for joined in report.joined[:_MOST_JOINED]
        ],
    }


def _key_json(key: FactKey) -> Mapping[str, str]:
    return {"namespace": key.namespace, "subject": key.subject, "relation": key.relation}


def _show_rekey(report: RekeyReport, dry_run: bool) -> None:
    if not report.pending:
        output.note(f"the {report.keys} keys have the form of this version")
    else:
        verb = "would get" if dry_run else "got"
        output.note(f"{report.changed} of {report.keys} keys {verb} another form")
    joined = "would be joined" if report.pending and dry_run else "joined"
    output.note(f"{joined}: {len(report.joined)} keys, {report.across_publishers} of different publishers")
    if report.joined:
        output.table(
            ("key", "written as", "publishers", "edits"),
            (
                (_slashed(joined.key), _slashed(former.key), ", ".join(former.publishers), former.edits)
                for joined in report.joined[:_MOST_JOINED]
                for former in joined.former
            ),
        )
    if len(report.joined) > _MOST_JOINED:
        output.note(f"... and {len(report.joined) - _MOST_JOINED} more")


def _slashed(key: FactKey) -> str:
    return "/".join(filter(None, (key.namespace, key.subject, key.relation)))
