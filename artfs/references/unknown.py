"""Schemes that artfs cannot read: W&B records the URI as the digest and leaves the size blank."""

from __future__ import annotations

from collections.abc import Iterator

from artfs.catalog.entry import Entry, Reference
from artfs.errors import InvalidReference, ReferenceUnsupported
from artfs.references.handler import unchecked
from artfs.references.uri import redact, scheme_of


class Unknown:
    """Any scheme without a handler."""

    def expand(
        self,
        uri: str,
        name: str | None,
        *,
        checksum: bool,  # noqa: ARG002  there is nothing to check
        max_objects: int,  # noqa: ARG002  there is one
    ) -> Iterator[Entry]:
        """One entry; ``name`` is required."""
        if not name:
            why = f'You must pass name="<entry_name>" when tracking references with unknown schemes ({scheme_of(uri)})'
            raise InvalidReference(uri=redact(uri), why=why)
        yield unchecked(name, uri)

    def identity(self, reference: Reference) -> str | None:
        """The URI is all that is known."""
        return reference.uri

    def stat(self, reference: Reference, deadline: float) -> Reference:  # noqa: ARG002  nobody is asked
        """Raises ReferenceUnsupported."""
        raise self._unsupported(reference)

    def fetch(self, reference: Reference, start: int, end: int, deadline: float) -> bytes:  # noqa: ARG002
        """Raises ReferenceUnsupported."""
        raise self._unsupported(reference)

    def _unsupported(self, reference: Reference) -> ReferenceUnsupported:
        why = f"artfs has no handler for the scheme {scheme_of(reference.uri)}"
        return ReferenceUnsupported(uri=redact(reference.uri), why=why)
