"""A directory that is an artifact, as far as media values need one."""

import base64
import contextlib
import hashlib
import os
import shutil
import uuid
from pathlib import Path

import attrs

from artfs.errors import PathConflict, PathNotFound
from artfs.media import add_value, get_value

ARTIFACTS = {}


@attrs.frozen
class DirectoryEntry:
    artifact: object
    path: str
    digest: str

    def download(self):
        self.artifact.downloads.append(self.path)
        return str(self.artifact.root / self.path)

    def ref_url(self):
        return f"wandb-artifact://{self.artifact.id}/{self.path}"


class DirectoryArtifact:
    def __init__(self, root):
        self.root = Path(root)
        self.id = uuid.uuid4().hex
        self.downloads = []
        self.references = {}
        self.local_names = {}
        ARTIFACTS[self.id] = self

    # the manifest

    @property
    def manifest(self):
        return self

    def get_entry_by_path(self, path):
        file = self.root / path
        if path in self.references:
            return DirectoryEntry(self, path, self.references[path])
        return DirectoryEntry(self, path, _digest(file)) if file.is_file() else None

    def get_entries_in_directory(self, directory):
        return [self.get_entry_by_path(path) for path in self.paths() if path.startswith(f"{directory}/")]

    def paths(self):
        return sorted(str(file.relative_to(self.root)) for file in self.root.rglob("*") if file.is_file())

    # writing

    def add(self, value, name, overwrite=False):
        return self.get_entry_by_path(add_value(self, value, name, overwrite=overwrite))

    @contextlib.contextmanager
    def new_file(self, name, mode="x", encoding=None):
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open(mode, encoding=encoding) as stream:
            yield stream

    def add_file(self, local_path, name=None, is_tmp=False):
        name = name or os.path.basename(local_path)
        if is_tmp:
            directory, _, basename = name.rpartition("/")
            digest = base64.b64decode(_digest(Path(local_path))).hex()[:20]
            name = f"{directory}/{digest}.{basename.partition('.')[2]}"
        self._put(name, Path(local_path))
        self.local_names[local_path] = name
        return self.get_entry_by_path(name)

    def add_reference(self, uri, name=None):
        if uri.startswith("wandb-artifact://"):
            source, _, path = uri.removeprefix("wandb-artifact://").partition("/")
            self._put(name, ARTIFACTS[source].root / path)
        else:
            self.references[name] = uri
        return [self.get_entry_by_path(name)]

    def _put(self, name, source):
        target = self.root / name
        if target.exists() and _digest(target) != _digest(source):
            raise PathConflict(path=name, a="one file", b="another")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    def get_added_local_path_name(self, local_path):
        return self.local_names.get(local_path)

    # reading

    def get_path(self, name):
        entry = self.get_entry_by_path(name)
        if entry is None:
            raise PathNotFound(path=name, name=str(self.root))
        return entry

    def get(self, name):
        return get_value(self, name)


def _digest(file):
    return base64.b64encode(hashlib.md5(file.read_bytes()).digest()).decode()
