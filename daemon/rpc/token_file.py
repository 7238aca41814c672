"""The file of those who may call: bearer tokens as SHA-256 hashes, and client certificates by subject.

    [principals]
    support-bot = { role = "asker", read = ["default", "team-*"], sha256 = "..." }

A token of `new_token` has 256 random bits: its plain SHA-256 cannot be turned back, so the file holds no
secret and no slow hash is needed. A file of version 0.1 (one token on each line) is read with the rights of
before.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import stat
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.rpc.access import (
    ADMIN_SOCKET,
    ANY,
    SOCKET,
    TCP,
    Limit,
    Principal,
    Role,
    Unauthenticated,
    unlimited,
)
from lte_runtime.disk import sync
from lte_runtime.errors import BadRequest, Refused
from lte_runtime.names.normalise import key_form
from lte_runtime.private_files import FILE_MODE

SECTION = "[principals]"
# A token that can be guessed is worse than none: it looks like protection.
MIN_TOKEN_LENGTH = 16
TOKEN_BYTES = 32
MOST_PRINCIPALS = 10_000
MOST_PATTERNS = 1000
LARGEST_FILE = 16 << 20
RESERVED_NAMES = frozenset({SOCKET, ADMIN_SOCKET, TCP})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_OLD_ROLES = (Role.ASKER, Role.PUBLISHER)
_OLD_FORMAT = (
    "{path} has one token on each line, which the next version does not read: each is asker and publisher in "
    "all namespaces. `lte token convert {path}` prints the file that replaces it"
)


@dataclass(frozen=True)
class Principals:
    """What a token file says. `warnings` are for the operator and hold no secret."""

    by_token: Mapping[bytes, Principal] = field(default_factory=dict)
    by_subject: Mapping[str, Principal] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Principal, ...]:
        return (*self.by_token.values(), *self.by_subject.values())

    def of_token(self, token: str, now_s: float) -> Principal:
        """Raises `Unauthenticated`."""
        offered = token_hash(token)
        # Looked up by hash: the time of it tells about the hash alone, from which no token can be made.
        principal = self.by_token.get(offered)
        if principal is None:
            raise Unauthenticated("unknown", "the bearer token is not known")
        return _current(principal, now_s, "the bearer token")

    def of_subject(self, subject: str, now_s: float) -> Principal:
        """Raises `Unauthenticated`."""
        principal = self.by_subject.get(subject)
        if principal is None:
            raise Unauthenticated(
                "unknown", "the client certificate's subject is in no entry of the token file"
            )
        return _current(principal, now_s, "the entry of this certificate")


def read(path: Path) -> Principals:
    """The principals of a file. Raises `Refused`, whose text quotes nothing of the file's secrets."""
    text = _text(path)
    try:
        if SECTION in (line.strip() for line in text.splitlines()):
            return _principals(text)
        return _old_principals(path, text)
    except ValueError as error:
        raise Refused(f"the token file {path}: {error}") from None


def token_hash(token: str) -> bytes:
    """SHA-256."""
    return hashlib.sha256(token.encode()).digest()


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_of(header: str) -> str:
    """The token of an Authorization header. Raises `Unauthenticated` for another scheme."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("malformed", "the authorization metadata is not: Bearer TOKEN")
    return token.strip()


def entry_line(principal: Principal, identity: Mapping[str, str]) -> str:
    """The line of a principal for the file; `identity` is its sha256 (in hex) or its subject."""
    values: dict[str, Any] = {"role": _roles_value(principal.roles)}
    values |= {"read": list(principal.read)} if principal.read else {}
    values |= {"write": list(principal.write)} if principal.write else {}
    parts = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    if principal.expires_s is not None:
        parts.append(f"expires = {datetime.fromtimestamp(principal.expires_s, UTC):%Y-%m-%dT%H:%M:%SZ}")
    if principal.limit is not None:
        parts.append(f"calls_per_s = {principal.limit.calls_per_s!r}, burst = {principal.limit.burst}")
    parts += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in identity.items()]
    return f'"{principal.name}" = {{ {", ".join(parts)} }}'


def check_entry(line: str) -> None:
    """Raises `BadRequest` for a line that no file may hold."""
    try:
        _principals(f"{SECTION}\n{line}\n")
    except ValueError as error:
        raise BadRequest(str(error)) from None


def add_entry(path: Path, line: str) -> None:
    """Append an entry to a file, which is made (0600) if there is none. The file is replaced in one step, and
    only by a valid one: raises `Refused`."""
    text = _text(path) if path.exists() else f"{SECTION}\n"
    if SECTION not in map(str.strip, text.splitlines()):
        raise Refused(f"{path} has no {SECTION}: `lte token convert {path}` prints a file that has")
    added = f"{text.rstrip()}\n{line}\n"
    try:
        _refuse_same_name(text, line)
        _principals(added)
    except ValueError as error:
        raise Refused(f"not added to {path}: {error}") from None
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else FILE_MODE
    write_private(path, added, mode)


def _refuse_same_name(text: str, line: str) -> None:
    """TOML's own word for it would not name the entry."""
    names = [set(tomllib.loads(part).get("principals", {})) for part in (text, f"{SECTION}\n{line}\n")]
    if double := names[0] & names[1]:
        raise ValueError(f"there is an entry {min(double)} already: choose another --name")


def write_private(path: Path, text: str, mode: int = FILE_MODE) -> None:
    """Put a file in the place of another in one step. Raises `Refused`."""
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}") from error
    scratch = Path(name)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        scratch.chmod(mode)
        sync(scratch)
        scratch.rename(path)
        sync(path.parent)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise Refused(f"cannot write {path}: {error.strerror}") from error


def converted(path: Path) -> str:
    """A file of the old form as one of the new form, with the same rights. Raises `Refused`."""
    principals = read(path)
    if not principals.warnings:
        raise Refused(f"{path} has the new form already")
    lines = (entry_line(who, {"sha256": digest.hex()}) for digest, who in principals.by_token.items())
    return "\n".join((SECTION, *lines, ""))


# -- the new form ------------------------------------------------------------------------------------------


def _pattern(text: str) -> str:
    pattern = key_form(text)
    if not pattern or ANY in pattern[:-1]:
        raise ValueError("a namespace pattern is a name, a prefix and *, or * for all")
    return pattern


_Patterns = Annotated[list[Annotated[str, AfterValidator(_pattern)]], Field(max_length=MOST_PATTERNS)]


class _Entry(BaseModel):
    """One principal as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    role: str | list[str]
    read: _Patterns = []
    write: _Patterns = []
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    subject: str | None = Field(default=None, min_length=1, max_length=1024)
    expires: datetime | date | None = None
    calls_per_s: float | None = Field(default=None, gt=0, le=1_000_000, allow_inf_nan=False)
    burst: int | None = Field(default=None, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _belongs_together(self) -> _Entry:
        if (self.sha256 is None) == (self.subject is None):
            raise ValueError("give either sha256 (a token) or subject (a certificate)")
        if self.burst is not None and self.calls_per_s is None:
            raise ValueError("burst needs calls_per_s")
        if not self.roles:
            raise ValueError("role is empty")
        check_rights(self.roles, self.read, self.write)
        return self

    @property
    def roles(self) -> frozenset[Role]:
        names = [self.role] if isinstance(self.role, str) else self.role
        unknown = sorted(set(names) - set(Role))
        if unknown:
            raise ValueError(f"role must be of {', '.join(Role)}")
        return frozenset(map(Role, names))

    def principal(self, name: str) -> Principal:
        limit = None
        if self.calls_per_s is not None:
            limit = Limit(self.calls_per_s, self.burst or default_burst(self.calls_per_s))
        ends = seconds_of(self.expires)
        return Principal(name, self.roles, tuple(self.read), tuple(self.write), ends, limit)


def check_rights(roles: frozenset[Role], may_read: Sequence[str], may_write: Sequence[str]) -> None:
    """Raises `ValueError` for a role that could do nothing in its namespaces."""
    if Role.ASKER in roles and not may_read:
        raise ValueError("an asker needs namespaces in read")
    if Role.PUBLISHER in roles and not may_write:
        raise ValueError("a publisher needs namespaces in write")
    if not may_read and not may_write:
        raise ValueError("name namespaces in read, in write, or in both")


def check_name(name: str) -> None:
    """Raises `ValueError` for what is no name of a principal."""
    if not _NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ValueError(
            "a name has 1 to 64 letters, digits and . _ @ -, begins with a letter or digit, and is none of "
            + ", ".join(sorted(RESERVED_NAMES))
        )


def _principals(text: str) -> Principals:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML {_place(error)}") from None
    entries = content.pop("principals", None)
    if content:
        raise ValueError(f"it has something beside {SECTION}")
    if not isinstance(entries, dict) or not 0 < len(entries) <= MOST_PRINCIPALS:
        raise ValueError(f"{SECTION} must hold 1 to {MOST_PRINCIPALS} entries")
    by_token: dict[bytes, Principal] = {}
    by_subject: dict[str, Principal] = {}
    for number, (name, value) in enumerate(entries.items(), 1):
        entry = _entry(number, name, value)
        if entry.sha256 is not None:
            _add(by_token, bytes.fromhex(entry.sha256), entry.principal(name))
        else:
            _add(by_subject, entry.subject or "", entry.principal(name))
    return Principals(by_token, by_subject)


def _entry(number: int, name: str, value: object) -> _Entry:
    try:
        check_name(name)
    except ValueError as error:
        # A token that was pasted as a name must not be shown.
        raise ValueError(f"entry {number}: {error}") from None
    try:
        return _Entry.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise ValueError(f"{name}: " + "; ".join(map(_fault, faults))) from None


def _fault(fault: Any) -> str:
    # Only fields of the entry are named: an unknown one may be a token.
    field_name = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] == "extra_forbidden":
        return f"unknown field; there are {', '.join(_Entry.model_fields)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{field_name}: {message}" if field_name else message


def _place(error: tomllib.TOMLDecodeError) -> str:
    """Where TOML ends; the parser's message may quote what stands there."""
    match = re.search(r"\(at [^()]*\)$", str(error))
    return match.group() if match else ""


def _add(principals: dict[Any, Principal], identity: object, principal: Principal) -> None:
    if identity in principals:
        other = principals[identity].name
        raise ValueError(f"{principal.name} and {other} have the same token or subject")
    principals[identity] = principal


def default_burst(calls_per_s: float) -> int:
    """A second's calls; 1 for what is no number, which no entry may hold."""
    return max(1, math.ceil(calls_per_s)) if math.isfinite(calls_per_s) else 1


def seconds_of(moment: datetime | date | None) -> float | None:
    """Seconds since the epoch; a time without a zone is UTC, a date its start."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _current(principal: Principal, now_s: float, what: str) -> Principal:
    if principal.expires_s is not None and now_s >= principal.expires_s:
        raise Unauthenticated("expired", f"{what} has expired")
    return principal


def _roles_value(roles: frozenset[Role]) -> str | list[str]:
    names = sorted(role.value for role in roles)
    return names[0] if len(names) == 1 else names


# -- the old form, and the file itself ---------------------------------------------------------------------


def _old_principals(path: Path, text: str) -> Principals:
    tokens = [line for line in map(str.strip, text.splitlines()) if line]
    if not tokens or min(map(len, tokens)) < MIN_TOKEN_LENGTH:
        raise ValueError(
            f"it must begin with {SECTION}; in the form of before, with one token on each line, tokens have "
            f"{MIN_TOKEN_LENGTH} characters or more"
        )
    if any("=" in token and "{" in token for token in tokens):
        raise ValueError(f"it holds entries of the new form, but no line {SECTION} before them")
    by_token = {
        token_hash(token): unlimited(f"token-{number}", _OLD_ROLES) for number, token in enumerate(tokens, 1)
    }
    return Principals(by_token, warnings=(_OLD_FORMAT.format(path=path),))


def _text(path: Path) -> str:
    try:
        about = path.stat()
        if about.st_mode & stat.S_IWOTH:
            raise Refused(f"every user can write to the token file {path}: `chmod o-w {path}`")
        if about.st_size > LARGEST_FILE:
            raise Refused(f"the token file {path} has more than {LARGEST_FILE >> 20} MiB")
        return path.read_text("utf-8")
    except OSError as error:
        raise Refused(f"the token file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        # Its message would quote the file's bytes.
        raise Refused(f"the token file {path} is not UTF-8") from None
