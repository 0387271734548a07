"""Reading and showing the URIs of references."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

from artfs.errors import InvalidReference

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
# Authority without user info: a bracketed IPv6 address or a plain host, then perhaps a port.
_SHOWN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<user>[^/?#]*@)?"
    r"(?P<host>(?:\[[^\]@/?#]*\]|[^:@/?#\[\]]*)(?::\d*)?)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL,
)
_VERSION_QUERY = re.compile(r"\?version[iI]d=[\w.:~\-]+")
_GENERATION = re.compile(r"#\d+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

ARTIFACT_SCHEMES: Final = frozenset({"artfs-artifact", "wandb-artifact", "wandb-client-artifact"})
"""References to an entry of another artifact: a registry resolves them to the target's extents, no handler does."""

AZURE_DOMAIN: Final = ".blob.core.windows.net"


def scheme_of(uri: str) -> str:
    """The scheme, lower case; raises InvalidReference for what is no URI or cannot stand in a catalog."""
    match = _SCHEME.match(uri)
    if match is None:
        why = "References must be URIs. To reference a local file, use file://"  # W&B's sentence
        raise InvalidReference(uri=redact(uri), why=why)
    if _UNPRINTABLE.search(uri):
        raise InvalidReference(uri=redact(uri), why="it holds control characters or is not UTF-8")
    return match[1].lower()


def redact(uri: str) -> str:
    """``uri`` as messages and logs may show it: without user info, query and fragment, which may be secrets.

    What names a version (``?versionId=``, a generation after ``#``) stays. Of what does not read as such a
    URI and has a mark of one of these, only the scheme is shown.
    """
    match = _SHOWN.fullmatch(uri)
    if match is None:
        scheme = _SCHEME.match(uri)
        shown = (scheme[0] if scheme else "") + "***" if re.search(r"[?#@]", uri) else uri
        return _UNPRINTABLE.sub("\ufffd", shown)
    query, fragment = match["query"] or "", match["fragment"] or ""
    parts = (
        match["scheme"],
        "://",
        "***@" if match["user"] else "",
        match["host"],
        match["path"] or "",
        query if _VERSION_QUERY.fullmatch(query) else "?***" if query else "",
        fragment if _GENERATION.fullmatch(fragment) else "#***" if fragment else "",
    )
    return _UNPRINTABLE.sub("\ufffd", "".join(parts))


def split_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """An http(s) URL without its user info, and that user info still percent-encoded; raises InvalidReference."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise InvalidReference(uri=redact(url), why="it is not a URL with a host")
    user, at, address = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = user.partition(":")
    return parts._replace(netloc=address).geturl(), (name, password)


def is_azure(url: str) -> bool:
    """Whether an https URL is a blob that Azure's SDK should read; one with a signature of its own needs no SDK."""
    parts = urlsplit(url)
    return (parts.hostname or "").endswith(AZURE_DOMAIN) and "sig" not in parse_qs(parts.query)
