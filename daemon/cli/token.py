"""`lte token`: make a token, list who may call, convert a token file of version 0.1."""

from __future__ import annotations

import secrets
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json
from daemon.rpc import token_file
from daemon.rpc.access import Limit, Principal, Role
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Tokens of callers: new, list, convert.")
_Namespaces = list[str] | None


@app.command()
def new(
    role: Annotated[list[Role], typer.Option(help="What it may do. Repeatable.")],
    name: Annotated[str | None, typer.Option(help="Name for logs and records. Default: made up.")] = None,
    read: Annotated[_Namespaces, typer.Option(help="Namespace, PREFIX* or *. Repeatable.")] = None,
    write: Annotated[_Namespaces, typer.Option(help="Namespace, PREFIX* or *. Repeatable.")] = None,
    expires: Annotated[datetime | None, typer.Option(help="When it ends, UTC.")] = None,
    calls_per_s: Annotated[float | None, typer.Option(help="Most calls a second on average.")] = None,
    burst: Annotated[int | None, typer.Option(help="Most calls at once; needs --calls-per-s.")] = None,
    subject: Annotated[
        str | None, typer.Option(help="Subject of a client certificate, instead of a token.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the token (0600), instead of stderr.")] = None,
    add_to: Annotated[Path | None, typer.Option(help="Token file that gets the line.")] = None,
    json_: Json = False,
) -> None:
    """Make a token and the line that admits it; the line holds its hash, and goes into rpc.token_file.

    The line goes to stdout, the token to stderr or into --out. It is not kept anywhere else.

    Example: lte token new --role publisher --write default --out etl.token >> tokens.toml
    """
    chosen = name or f"{role[0]}-{secrets.token_hex(4)}"
    limit = (
        None
        if calls_per_s is None
        else Limit(calls_per_s, token_file.default_burst(calls_per_s) if burst is None else burst)
    )
    ends = None if expires is None else token_file.seconds_of(expires)
    principal = Principal(chosen, frozenset(role), tuple(read or ()), tuple(write or ()), ends, limit)
    if burst is not None and calls_per_s is None:
        raise BadRequest("--burst needs --calls-per-s")
    if subject is not None and out is not None:
        raise BadRequest("a certificate has no token: leave --out away")
    token = None if subject else token_file.new_token()
    line = token_file.entry_line(principal, _identity(token, subject))
    token_file.check_entry(line)
    if out is not None and token is not None:
        token_file.write_private(out, f"{token}\n")
    if add_to is not None:
        token_file.add_entry(add_to, line)
    if json_:
        output.as_json({"name": chosen, "entry": line, "token": None if out else token})
        return
    typer.echo(line)
    if token is not None and out is None:
        output.note(f"token of {chosen}, shown once: {token}")


def _identity(token: str | None, subject: str | None) -> dict[str, str]:
    if token is None:
        return {"subject": subject or ""}
    return {"sha256": token_file.token_hash(token).hex()}


@app.command("list")
def list_(
    file: Annotated[Path | None, typer.Option(help="Token file. Default: rpc.token_file.")] = None,
    config: ConfigFile = None,
    json_: Json = False,
) -> None:
    """Who may call: names, roles, namespaces, ends and limits; neither tokens nor their hashes.

    Example: lte token list --file tokens.toml
    """
    principals = token_file.read(file or _configured(config))
    for warning in principals.warnings:
        output.note(f"warning: {warning}")
    subjects = {who.name: subject for subject, who in principals.by_subject.items()}
    rows = [_row(who, subjects.get(who.name)) for who in principals.all]
    if json_:
        output.as_json(rows)
    else:
        columns = ("name", "roles", "read", "write", "expires", "calls_per_s", "burst", "subject")
        output.table(columns, ([_cell(row[name]) for name in columns] for row in rows))


@app.command()
def convert(file: Annotated[Path, typer.Argument(help="A file with one token on each line.")]) -> None:
    """Print the token file of today for one of version 0.1: the same tokens with the same rights.

    Example: lte token convert tokens > tokens.toml
    """
    typer.echo(token_file.converted(file), nl=False)


def _configured(config: Path | None) -> Path:
    from daemon.config import load

    path = load(config).settings.rpc.token_file
    if path is None:
        raise BadRequest("rpc.token_file is not set: name a file with --file")
    return path


def _row(who: Principal, subject: str | None) -> dict[str, object]:
    return {
        "name": who.name,
        "roles": sorted(who.roles),
        "read": list(who.read),
        "write": list(who.write),
        "expires": None if who.expires_s is None else output.utc(round(who.expires_s * 1000)),
        "calls_per_s": who.limit and who.limit.calls_per_s,
        "burst": who.limit and who.limit.burst,
        "subject": subject,
    }


def _cell(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value
