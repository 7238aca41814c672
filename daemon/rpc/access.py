"""Who may call what, and in which namespaces: the one table for gRPC, the HTTP gateway and MCP.

Pure: no file, no clock, no gRPC. A method that is not in the table is open to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lte_runtime.errors import LteError
from lte_runtime.facts.keys import DEFAULT_NAMESPACE
from lte_runtime.names.normalise import key_form

HEADER = "authorization"
HEALTH = "/grpc.health.v1.Health/"
ANY = "*"
# Names that the log gives to callers without a token: no principal may bear one.
SOCKET, ADMIN_SOCKET, TCP = "lte.sock", "admin.sock", "tcp"


class Role(StrEnum):
    """An asker asks and reads, a publisher writes facts and reads, an operator runs the daemon and reads.

    No role holds another one: a principal has one or several.
    """

    ASKER = "asker"
    PUBLISHER = "publisher"
    OPERATOR = "operator"


class Access(StrEnum):
    READ = "read"
    WRITE = "write"


class Denied(LteError):
    """The principal may not do this (PERMISSION_DENIED). Says which role or namespace is needed."""


class Unauthenticated(LteError):
    """Nobody who is known (UNAUTHENTICATED). `why` is missing, malformed, unknown or expired."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: `calls_per_s` on average, `burst` at once."""

    calls_per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `read` and `write` are namespace patterns: a name, a prefix and `*`, or `*` for all.

    `expires_s` is in seconds since the epoch. `is_anonymous`: the name is that of a socket.
    """

    name: str
    roles: frozenset[Role]
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    expires_s: float | None = None
    limit: Limit | None = None
    is_anonymous: bool = False

    def may(self, access: Access, namespace: str) -> bool:
        """Whether the normalised `namespace` is one of its own; `*` stands for all of them."""
        patterns = self.read if access is Access.READ else self.write
        return any(_matches(pattern, namespace) for pattern in patterns)

    def may_read(self, namespace: str) -> bool:
        return self.may(Access.READ, namespace)


def unlimited(name: str, roles: Iterable[Role], *, is_anonymous: bool = False) -> Principal:
    """A principal with these roles in all namespaces."""
    return Principal(name, frozenset(roles), (ANY,), (ANY,), is_anonymous=is_anonymous)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Where a request names the namespaces that it concerns.

    `field` is the dotted path of a request's field, which may be repeated; none for a method that concerns
    all namespaces. `absent` is what an empty field stands for. With `of_result` they stand in what is
    returned: the servicer asks `Principal.may_read` and treats the others as if they did not exist.
    """

    access: Access
    field: str = ""
    absent: str = DEFAULT_NAMESPACE
    of_result: bool = False

    def of(self, request: Any) -> frozenset[str]:
        """The normalised namespaces that `request` concerns, `*` for all."""
        if self.of_result:
            return frozenset()
        if not self.field:
            return frozenset({ANY})
        return frozenset(key_form(text) or self.absent for text in _values(request, self.field))


@dataclass(frozen=True, slots=True)
class Rule:
    """The roles that may call a method, any of them, and the namespaces that it concerns; None for none."""

    roles: frozenset[Role]
    namespaces: Namespaces | None = None


_ALL = frozenset(Role)
_ASKER = frozenset({Role.ASKER})
_OPERATOR = frozenset({Role.OPERATOR})
_PUBLISHER = frozenset({Role.PUBLISHER})
_ASKER_OR_PUBLISHER = frozenset({Role.ASKER, Role.PUBLISHER})

_READS_NAMED = Namespaces(Access.READ, "namespace")
_READS_RESULT = Namespaces(Access.READ, of_result=True)
# What an operator sees or changes without naming a namespace concerns every one of them.
_SEES_ALL = Rule(_OPERATOR, Namespaces(Access.READ))
_CHANGES_ALL = Rule(_OPERATOR, Namespaces(Access.WRITE))

RULES: dict[str, Rule] = {
    "/lte.v1.AnswerService/Answer": Rule(_ASKER, _READS_NAMED),
    "/lte.v1.AnswerService/AnswerStream": Rule(_ASKER, _READS_NAMED),
    "/lte.v1.AnswerService/Retrieve": Rule(_ASKER, _READS_NAMED),
    "/lte.v1.AnswerService/ReportFeedback": Rule(_ASKER),
    "/lte.v1.EditService/GetEdit": Rule(_ALL, _READS_RESULT),
    "/lte.v1.EditService/ListEdits": Rule(_ALL, Namespaces(Access.READ, "namespace", absent=ANY)),
    "/lte.v1.EditService/GetHistory": Rule(_ALL, Namespaces(Access.READ, "key.namespace")),
    "/lte.v1.EditService/WhyNot": Rule(_ALL, _READS_RESULT),
    "/lte.v1.EditService/Publish": Rule(_PUBLISHER, Namespaces(Access.WRITE, "events.namespace")),
    "/lte.v1.EditService/DryRun": Rule(_ASKER_OR_PUBLISHER, Namespaces(Access.READ, "event.namespace")),
    "/lte.v1.AdminService/GetStatus": _SEES_ALL,
    "/lte.v1.AdminService/VerifyIndex": _SEES_ALL,
    "/lte.v1.AdminService/RebuildIndex": _CHANGES_ALL,
    "/lte.v1.AdminService/TakeSnapshot": _CHANGES_ALL,
    "/lte.v1.AdminService/AcceptGap": _CHANGES_ALL,
    "/lte.v1.AdminService/ResumeIngest": _CHANGES_ALL,
    "/lte.v1.AdminService/SkipRecord": _CHANGES_ALL,
    "/lte.v1.AdminService/ListDeadLetters": _SEES_ALL,
    "/lte.v1.AdminService/GetDeadLetter": _SEES_ALL,
    "/lte.v1.AdminService/ReplayDeadLetters": _CHANGES_ALL,
    "/lte.v1.AdminService/EraseFact": Rule(_OPERATOR, Namespaces(Access.WRITE, "key.namespace")),
    "/lte.v1.AdminService/ListAdapters": _SEES_ALL,
    "/lte.v1.AdminService/AddAdapter": _CHANGES_ALL,
    "/lte.v1.AdminService/VerifyAdapter": _SEES_ALL,
    "/lte.v1.AdminService/ActivateAdapter": _CHANGES_ALL,
    "/lte.v1.AdminService/Rollback": _CHANGES_ALL,
    "/lte.v1.AdminService/GetDrift": _SEES_ALL,
    "/lte.v1.AdminService/TriggerRealignment": _CHANGES_ALL,
    "/lte.v1.AdminService/GetRealignment": _SEES_ALL,
    "/lte.v1.AdminService/ListRealignments": _SEES_ALL,
    "/lte.v1.AdminService/CancelRealignment": _CHANGES_ALL,
    "/lte.v1.AdminService/WatchRealignment": _SEES_ALL,
    "/grpc.health.v1.Health/Check": Rule(_ALL),
    "/grpc.health.v1.Health/Watch": Rule(_ALL),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Rule(_ALL),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(_ALL),
}


def is_open(method: str) -> bool:
    """Whether a method asks for no token: probes of load balancers bring none, so health is open."""
    return method.startswith(HEALTH) and method in RULES


def is_operator_act(method: str) -> bool:
    """Whether a method is for operators alone and changes something."""
    rule = RULES.get(method)
    if rule is None or rule.namespaces is None:
        return False
    return rule.roles == _OPERATOR and rule.namespaces.access is Access.WRITE


def allowed(method: str, roles: Iterable[Role]) -> bool:
    """Whether one of the roles may call the method, in namespaces of its own."""
    rule = RULES.get(method)
    return rule is not None and not rule.roles.isdisjoint(roles)


def check_role(method: str, principal: Principal) -> None:
    """Raises `Denied` for a method that is not open to a role of the principal."""
    rule = RULES.get(method)
    if rule is None:
        raise Denied("this method is not open to anybody")
    if rule.roles.isdisjoint(principal.roles):
        raise Denied(
            f"{method} needs the role {_list(rule.roles, ' or ')}; {_describe(principal)} has no such role"
        )


def check_namespaces(method: str, principal: Principal, request: Any) -> None:
    """Raises `Denied` for a request that concerns a namespace which the principal may not read or write.

    Call it after `check_role`. It looks at names in the request alone, never at what is stored.
    """
    namespaces = RULES[method].namespaces
    if namespaces is None:
        return
    for namespace in sorted(namespaces.of(request)):
        if not principal.may(namespaces.access, namespace):
            raise Denied(_refusal(method, principal, namespaces, namespace))


def _refusal(method: str, principal: Principal, namespaces: Namespaces, namespace: str) -> str:
    required = f"namespace {namespace!r}" if namespace != ANY else "all namespaces ('*')"
    patterns = principal.read if namespaces.access is Access.READ else principal.write
    own = _list(map(repr, patterns), ", ") or "none"
    advice = ": name one of them in the request" if namespaces.field and namespace == ANY else ""
    return (
        f"{method} needs to {namespaces.access} {required}; {_describe(principal)} may {namespaces.access} "
        f"{own}{advice}"
    )


def _describe(principal: Principal) -> str:
    return f"{principal.name} ({_list(principal.roles, ', ') or 'no role'})"


def _list(names: Iterable[str], joint: str) -> str:
    return joint.join(sorted(names))


def _matches(pattern: str, namespace: str) -> bool:
    if pattern.endswith(ANY):
        return namespace.startswith(pattern[:-1])
    # All namespaces are more than one that happens to bear the name `*`.
    return namespace == pattern


def _values(message: Any, path: str) -> Iterator[str]:
    """The texts of a dotted field, through repeated messages."""
    name, _, below = path.partition(".")
    value = getattr(message, name)
    if not below:
        yield value
    elif message.DESCRIPTOR.fields_by_name[name].is_repeated:
        for item in value:
            yield from _values(item, below)
    else:
        yield from _values(value, below)
