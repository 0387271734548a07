"""To whom a store belongs: the object ``artfs-store.json``, ``{"format": 1, "registry": "<id>"}``."""

from __future__ import annotations

import contextlib
import json
from typing import Final

from artfs.errors import ObjectExists, ObjectNotFound, SchemaMismatch, StoreNotOurs
from artfs.store.objects import ObjectStore

KEY: Final = "artfs-store.json"
FORMAT: Final = 1


def claim_store(store: ObjectStore, registry_id: str, *, deadline: float, take_over: bool = False) -> None:
    """Make an empty store this registry's, or make sure that it is; makes the directory of a ``file:`` store.

    ``take_over`` makes it this registry's whoever had it, for one that was rebuilt from it: the lost one, should it
    come back, is refused from then on. Raises StoreNotOurs, SchemaMismatch.
    """
    store.create()
    try:
        owner = store_owner(store, deadline=deadline)
    except ObjectNotFound:
        with contextlib.suppress(ObjectExists):  # somebody was faster, perhaps an earlier attempt of our own
            store.put(KEY, _mark(registry_id), deadline=deadline, overwrite=False)
        owner = store_owner(store, deadline=deadline)
    if owner != registry_id and take_over:
        store.put(KEY, _mark(registry_id), deadline=deadline)
    elif owner != registry_id:
        raise StoreNotOurs(store=store.url, found=owner, expected=registry_id)


def store_owner(store: ObjectStore, *, deadline: float) -> str:
    """The id of the registry that a store belongs to; raises ObjectNotFound if nobody has claimed it."""
    text = store.get(KEY, deadline=deadline)
    try:
        mark = json.loads(text)
        found, owner = mark["format"], str(mark["registry"])
    except (ValueError, TypeError, KeyError):
        raise StoreNotOurs(store=store.url, found="an unreadable mark", expected="artfs's") from None
    if found != FORMAT:
        raise SchemaMismatch(what=store.url, found=found, known=FORMAT, hint="use the artfs release that wrote it")
    return owner


def _mark(registry_id: str) -> bytes:
    return json.dumps({"format": FORMAT, "registry": registry_id}).encode()
