"""The object store: packs in, ranges out, garbage collection."""

from artfs.store.backend import StoredObject
from artfs.store.claim import claim_store, store_owner
from artfs.store.gc import GcReport, collect
from artfs.store.objects import ObjectStore, StoreStatistics, open_store
from artfs.store.pack import PackBuilder, SealedPack, read_index
from artfs.store.records import read_record, read_records, record_key, write_record
from artfs.store.upload import Uploader, UploadStatistics

__all__ = [
    "GcReport",
    "ObjectStore",
    "PackBuilder",
    "SealedPack",
    "StoreStatistics",
    "StoredObject",
    "UploadStatistics",
    "Uploader",
    "claim_store",
    "collect",
    "open_store",
    "read_index",
    "read_record",
    "read_records",
    "record_key",
    "store_owner",
    "write_record",
]
