"""Stored objects for tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

from storeguard.storage.objects import ObjectStore, StoredObject


def put(store: ObjectStore, content: bytes, key: str) -> StoredObject:
    """Stores bytes under a key, by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "content"
        local.write_bytes(content)
        return store.put_file(local, key)
