"""What a socket says about its callers: rights without a token, and whose tokens and certificates count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from daemon.rpc.access import ADMIN_SOCKET, SOCKET, TCP, Principal, Role, Unauthenticated, unlimited
from daemon.rpc.token_store import Metadata, TokenStore, token_in

_SUBJECT = "x509_subject"


@dataclass(frozen=True, slots=True)
class Listener:
    """`anonymous` are the rights of a call without a token, None where every call needs one.

    With `reads_tokens` a call that brings a token has the token's rights and no others: a gateway that
    forwards its callers' tokens over a socket lends them none of its own. With `certificates` a call without
    a token has the rights of its client certificate.
    """

    name: str
    anonymous: Principal | None
    tokens: TokenStore | None = None
    reads_tokens: bool = True
    certificates: bool = False

    def principal(self, metadata: Metadata) -> Principal | None:
        """Who calls; None where the certificate says so. Raises `Unauthenticated`."""
        token = token_in(metadata) if self.reads_tokens else None
        if token is not None:
            if self.tokens is None:
                raise Unauthenticated("unknown", "this daemon has no rpc.token_file: send no token")
            return self.tokens.principal_of(token)
        if self.certificates:
            return None
        if self.anonymous is None:
            raise Unauthenticated("missing", "a bearer token is needed: send authorization: Bearer TOKEN")
        return self.anonymous

    def certified(self, peer: Mapping[str, Any]) -> Principal:
        """Who calls, from gRPC's authentication context. Raises `Unauthenticated`."""
        subjects = [subject.decode("utf-8", "replace") for subject in peer.get(_SUBJECT, ())]
        if self.tokens is None or len(subjects) != 1:
            raise Unauthenticated("missing", "a bearer token or a client certificate is needed")
        return self.tokens.certified(subjects[0])


def socket_listener(roles: Iterable[Role], tokens: TokenStore | None) -> Listener:
    """The client socket: whoever may open it has these roles; with none, a token is needed."""
    return Listener(SOCKET, _anonymous(SOCKET, roles), tokens)


def admin_listener() -> Listener:
    """The admin socket: everything, for the daemon's own user; a token neither adds nor takes away."""
    return Listener(ADMIN_SOCKET, _anonymous(ADMIN_SOCKET, Role), reads_tokens=False)


def tcp_listener(roles: Iterable[Role], tokens: TokenStore | None, *, certificates: bool) -> Listener:
    """TCP: whoever brings no token has these roles, none away from loopback; with none, a token is needed."""
    return Listener(TCP, _anonymous(TCP, roles), tokens, certificates=certificates)


def _anonymous(name: str, roles: Iterable[Role]) -> Principal | None:
    own_roles = tuple(roles)
    return unlimited(name, own_roles, is_anonymous=True) if own_roles else None
