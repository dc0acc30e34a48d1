"""Who may do what: tokens, the names that this service goes by, and other pages' scripts."""

import hashlib
import hmac
import ipaddress
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from murank._exceptions import InputError

Role = Literal["read", "admin"]
_SHORTEST = 16  # characters of a token
_PORTS = {"http": ":80", "https": ":443"}  # that an Origin leaves out
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Tokens:
    """Tokens by their hashes, with what each allows."""

    roles: Mapping[str, Role]  # sha256 of a token

    @classmethod
    def read(cls, path: Path) -> "Tokens":
        """Read a file of lines `read TOKEN` or `admin TOKEN`; empty ones and #... are passed.

        Raises InputError where it is another's to read, or a line is none of these.
        """
        try:
            mode = path.stat().st_mode
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--token-file {path}: {error}") from error
        if stat.S_IMODE(mode) & 0o077:
            raise InputError(f"--token-file {path} may be read by others: chmod 600 it")
        roles: dict[str, Role] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or words[0] not in get_args(Role) or len(words[1]) < _SHORTEST:
                raise InputError(
                    f"--token-file {path}, line {number}: must be read TOKEN or admin TOKEN, a "
                    f"token of at least {_SHORTEST} characters"
                )
            roles[_hashed(words[1])] = words[0]  # type: ignore[assignment]
        if not roles:
            raise InputError(f"--token-file {path} holds no token")
        return cls(roles)

    def role_of(self, authorization: str | None) -> Role | None:
        """Return what a header `Bearer TOKEN` allows; None: nothing."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given, role = _hashed(token.strip()), None
        for known, of_known in self.roles.items():  # all of them: time tells nothing
            if hmac.compare_digest(known, given):
                role = of_known
        return role


def fingerprint(authorization: str | None) -> str | None:
    """Return what tells tokens apart in a log, and tells nobody a token."""
    if not authorization:
        return None
    return _hashed(authorization.partition(" ")[2].strip())[:12]


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Names:
    """Host headers that are answered: a page elsewhere cannot let its own name point here."""

    names: Collection[str] | None  # None: a socket file, which no page reaches
    takes_addresses: bool = False  # bound to all of them
    elsewhere: Collection[str] = ()  # NAME or NAME:PORT, as pages behind a proxy have it

    @classmethod
    def of(cls, host: str | None, more: Collection[str] = ()) -> "Names":
        """Return those of an address that is listened at; None: a socket file."""
        elsewhere = {one.lower() for one in more}
        if host is None:
            return cls(None, elsewhere=elsewhere)
        is_any = host in ("0.0.0.0", "::")  # noqa: S104
        own = _LOOPBACK if is_any or is_loopback(host) else ()
        named = (_without_port(one) for one in elsewhere)
        return cls({host.lower(), *own, *named}, is_any, elsewhere)

    def allow(self, header: str | None) -> bool:
        """Whether a Host header is one of them, at any port: it may be forwarded from another."""
        if self.names is None:
            return True
        name = _without_port((header or "").lower())
        return name in self.names or (self.takes_addresses and _is_address(name))

    def allow_origin(self, origin: str, host: str | None, scheme: str) -> bool:
        """Whether an Origin is this service's own page: by the name and port it was asked by.

        A proxy may ask by another name than the page did: that is one of `elsewhere`.
        """
        page_scheme, _, page = origin.lower().partition("://")
        if page_scheme not in _PORTS or (scheme == "https" and page_scheme == "http"):
            return False
        page = page.removesuffix(_PORTS[page_scheme])
        asked = (host or "").lower().removesuffix(_PORTS[page_scheme])
        return page == asked or page in self.elsewhere


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
