"""Who may call what. A method that is not in the table is open to nobody."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from lte_runtime.errors import Refused

HEADER = "authorization"
HEALTH = "/grpc.health.v1.Health/"
# A token that can be guessed is worse than none: it looks like protection.
MIN_TOKEN_LENGTH = 16


class Role(StrEnum):
    """Given by the socket that a call came in on."""

    USER = "user"
    ADMIN = "admin"


_EVERYBODY = frozenset(Role)
_ADMIN = frozenset({Role.ADMIN})

RULES: dict[str, frozenset[Role]] = {
    "/lte.v1.AnswerService/Answer": _EVERYBODY,
    "/lte.v1.AnswerService/AnswerStream": _EVERYBODY,
    "/lte.v1.AnswerService/Retrieve": _EVERYBODY,
    "/lte.v1.AnswerService/ReportFeedback": _EVERYBODY,
    "/lte.v1.EditService/GetEdit": _EVERYBODY,
    "/lte.v1.EditService/ListEdits": _EVERYBODY,
    "/lte.v1.EditService/GetHistory": _EVERYBODY,
    "/lte.v1.EditService/WhyNot": _EVERYBODY,
    "/lte.v1.EditService/Publish": _EVERYBODY,
    "/lte.v1.EditService/DryRun": _EVERYBODY,
    "/lte.v1.AdminService/GetStatus": _ADMIN,
    "/lte.v1.AdminService/VerifyIndex": _ADMIN,
    "/lte.v1.AdminService/RebuildIndex": _ADMIN,
    "/lte.v1.AdminService/TakeSnapshot": _ADMIN,
    "/lte.v1.AdminService/AcceptGap": _ADMIN,
    "/lte.v1.AdminService/ResumeIngest": _ADMIN,
    "/lte.v1.AdminService/SkipRecord": _ADMIN,
    "/lte.v1.AdminService/ListDeadLetters": _ADMIN,
    "/lte.v1.AdminService/GetDeadLetter": _ADMIN,
    "/lte.v1.AdminService/ReplayDeadLetters": _ADMIN,
    "/lte.v1.AdminService/EraseFact": _ADMIN,
    "/lte.v1.AdminService/ListAdapters": _ADMIN,
    "/lte.v1.AdminService/AddAdapter": _ADMIN,
    "/lte.v1.AdminService/VerifyAdapter": _ADMIN,
    "/lte.v1.AdminService/ActivateAdapter": _ADMIN,
    "/lte.v1.AdminService/Rollback": _ADMIN,
    "/lte.v1.AdminService/GetDrift": _ADMIN,
    "/lte.v1.AdminService/TriggerRealignment": _ADMIN,
    "/lte.v1.AdminService/GetRealignment": _ADMIN,
    "/lte.v1.AdminService/ListRealignments": _ADMIN,
    "/lte.v1.AdminService/CancelRealignment": _ADMIN,
    "/lte.v1.AdminService/WatchRealignment": _ADMIN,
    "/grpc.health.v1.Health/Check": _EVERYBODY,
    "/grpc.health.v1.Health/Watch": _EVERYBODY,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _EVERYBODY,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _EVERYBODY,
}


def allowed(method: str, role: Role) -> bool:
    return role in RULES.get(method, frozenset())


class Tokens:
    """Bearer tokens, kept as hashes and compared in constant time."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._hashes = [_hash(token) for token in tokens]

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """One token on each line. Raises `Refused` for a file without one, or with one that is short."""
        try:
            lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"the token file {path} cannot be read: {error}") from error
        tokens = [line for line in lines if line]
        if not tokens or min(map(len, tokens)) < MIN_TOKEN_LENGTH:
            raise Refused(
                f"{path} must hold tokens of {MIN_TOKEN_LENGTH} characters or more, one on each line"
            )
        return cls(tokens)

    def accept(self, metadata: Sequence[tuple[str, str | bytes]]) -> bool:
        """Whether the call's metadata carry one of the tokens."""
        values = [value for name, value in metadata if name == HEADER and isinstance(value, str)]
        if len(values) != 1 or not values[0].lower().startswith("bearer "):
            return False
        offered = _hash(values[0][7:].strip())
        # Every hash is compared, so that time does not tell which one came near.
        return sum(hmac.compare_digest(offered, token_hash) for token_hash in self._hashes) > 0


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
