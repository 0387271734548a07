"""Every failure that artfs reports, in one tree.

A class owns the sentence a user reads (``template``), the ``errno`` that a program reading a mount gets, and the
exit code of the command line. The mapping to errno happens once, in ``artfs.fuse``; to exit codes once, in
``artfs.cli``. A sentence says what happened and, where there is something to do, what to do next.

Exit codes: 1 other failure, 2 usage, 3 not found, 4 refused input, 5 conflict, 6 store or registry out of reach or
access denied, 7 damaged data, 8 mount, 9 disk full or local input/output, 10 configuration or schema.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class ArtfsError(Exception):
    """Base of every error; ``fields`` fill the class's ``template``."""

    template: ClassVar[str] = "{message}"
    errno: ClassVar[int] = errno.EIO
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, /, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields) if message is None else message)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.fields))


def _rebuild(cls: type[ArtfsError], text: str, fields: dict[str, object]) -> ArtfsError:
    error = cls(text)
    error.fields = fields
    return error


# -- refused input (exit 4) -------------------------------------------------------------------------------------


class InvalidInput(ArtfsError, ValueError):
    """Something a user gave breaks a rule."""

    errno = errno.EINVAL
    exit_code = 4


class InvalidName(InvalidInput):
    """A name of an artifact, project, alias, tag or type breaks the naming rules."""

    template = "invalid {what} {name!r}: {why}"


class InvalidPath(InvalidInput):
    """A path inside an artifact breaks the rules."""

    template = "invalid path {path!r} inside an artifact: {why}"


class InvalidPattern(InvalidInput):
    """A pattern of what to leave out that means nothing in .gitignore's syntax."""

    template = "invalid pattern {pattern!r}: it means nothing as a line of .gitignore"


class PathConflict(InvalidInput):
    """One path would be both a file and a directory, or two different files."""

    template = "{path!r} would be both {a} and {b} in one artifact"


class InvalidMetadata(InvalidInput):
    """Metadata that is not a JSON object, has too many keys, or holds what JSON cannot carry."""

    template = "invalid metadata: {why}"


class InvalidManifest(InvalidInput):
    """A W&B manifest that cannot be read."""

    template = "invalid manifest: {why}"


class InvalidReference(InvalidInput):
    """A reference URI that cannot be added."""

    template = "cannot reference {uri}: {why}"


class InvalidMedia(InvalidInput, TypeError):
    """A media value that its type, or W&B's format for it, does not allow."""

    template = "invalid {what}: {why}"


class TypeMismatch(InvalidInput):
    """A collection holds one type only."""

    template = "{collection} already exists with type {existing!r}; cannot log a version of type {given!r} to it"


class KindMismatch(InvalidInput):
    """A portfolio holds links, a sequence holds versions of its own."""

    template = "{collection} is a {existing}; {why}"


class TypeRequired(InvalidInput):
    """The first version of a collection decides its type."""

    template = "the collection {collection} does not exist yet; say what it holds with --type"


class InvalidTarget(InvalidInput):
    """A directory that the files of a version cannot be written to, or must not be."""

    template = "cannot write a version to {directory!r}: {why}"


class InvalidText(InvalidInput):
    """Free text, such as a description, that cannot be kept."""

    template = "invalid {what} {text!r}: {why}"


class SourceChanged(InvalidInput):
    """A source file changed while it was being read for a new version."""

    template = "{path} changed while it was being logged; log again when it is at rest"
    exit_code = 5


class SourceUnreadable(InvalidInput):
    """A source file is missing, unreadable, a dangling link or of a kind that cannot be stored."""

    template = "cannot read {path}: {why}"


class SourceMissing(SourceUnreadable, FileNotFoundError):
    """A source file does not exist."""

    errno = errno.ENOENT  # type: ignore[misc]  # OSError has it as an instance variable


# -- not found (exit 3) -----------------------------------------------------------------------------------------


class NotFound(ArtfsError, LookupError):
    """Something named does not exist."""

    template = "{what} {name} does not exist"
    errno = errno.ENOENT
    exit_code = 3


class VersionNotFound(NotFound):
    """No such entity, project, collection, version or alias."""

    template = "{name} does not exist{hint}"


class PathNotFound(NotFound, KeyError):
    """No such path inside a version."""

    template = "{path!r} is not in {name}"

    def __str__(self) -> str:
        return str(self.args[0])


class EntryNotFound(PathNotFound, FileNotFoundError):
    """No such entry in an artifact; a KeyError where one is asked for, a FileNotFoundError where one is removed."""

    errno = errno.ENOENT  # type: ignore[misc]  # OSError has it as an instance variable


class ObjectNotFound(NotFound):
    """An object is not in the store."""

    template = "{key} is not in the object store {store}"
    errno = errno.EIO
    exit_code = 7


# -- conflicts (exit 5) -----------------------------------------------------------------------------------------


class Conflict(ArtfsError):
    """What was asked contradicts the present state."""

    errno = errno.EBUSY
    exit_code = 5


class AliasesExist(Conflict):
    """A version that still has aliases is deleted only on request."""

    template = (
        "{name} still has the aliases {aliases}; `artfs rm --delete-aliases`, in Python delete(delete_aliases=True), "
        "deletes it with them"
    )


class VersionInUse(Conflict):
    """A version cannot be deleted while something needs it."""

    template = "{name} cannot be deleted: {why}"


class ObjectExists(Conflict):
    """An object that must be new is already in the store."""

    template = "{key} already exists in the object store"


class BaseOutdated(Conflict):
    """A commit that must follow the latest version does not."""

    template = "{collection} moved on to {latest} since the version being committed was begun"


class NotCommitted(Conflict):
    """Only committed versions can be linked, or carry aliases."""

    template = "{name} is {state}, not COMMITTED"


class RegistryFull(Conflict):
    """The registry has no membership ids left."""

    template = "the registry has given out all of its {limit} version and link ids; start a new registry"


class PacksCondemned(Conflict):
    """Garbage collection took packs that a commit relied on; the commit must store their content again."""

    template = "{count} packs that this version relies on are being deleted; store their content again"


class StoreNotOurs(Conflict):
    """A store belongs to one registry."""

    template = "the store {store} belongs to another registry ({found}, this one is {expected}); use an empty prefix"
    exit_code = 10


# -- what a program asked of a writable mount (exit 4) ------------------------------------------------------------


class Refused(ArtfsError):
    """A file-system operation that POSIX, or this file system, does not allow."""

    template = "{what}"
    errno = errno.EPERM
    exit_code = 4


class AlreadyExists(Refused):
    """The name is taken."""

    template = "{name!r} exists"
    errno = errno.EEXIST


class DirectoryNotEmpty(Refused):
    """Only an empty directory can be removed or replaced."""

    template = "the directory {name!r} is not empty"
    errno = errno.ENOTEMPTY


class IsDirectory(Refused):
    """A directory where something else is needed."""

    template = "{name!r} is a directory"
    errno = errno.EISDIR


class NotDirectory(Refused):
    """Something else where a directory is needed."""

    template = "{name!r} is not a directory"
    errno = errno.ENOTDIR


class IntoItself(Refused):
    """A directory cannot be moved beneath itself."""

    template = "{name!r} cannot be moved into itself"
    errno = errno.EINVAL


class NameTooLong(Refused):
    """A name over 255 bytes or a path over 4,096."""

    template = "{name!r} is longer than {limit} bytes"
    errno = errno.ENAMETOOLONG


class FileTooLarge(Refused):
    """An offset beyond what a file can have."""

    template = "{name!r} would be larger than a file can be"
    errno = errno.EFBIG


class DraftInUse(Conflict):
    """A draft is staged on in one mount at a time."""

    template = "the draft {draft} is mounted writable by process {process}; unmount that first"


class DraftNeeded(Conflict):
    """What a writable mount of a draft left behind cannot be published without the draft."""

    template = "the draft {draft} is needed by the staging area {area}; commit or discard that first"


class AreaInUse(Conflict):
    """A staging area that another process has open."""

    template = "the staging area {area} is in use by process {process}; unmount it first"


# -- out of reach (exit 6) --------------------------------------------------------------------------------------


class Unavailable(ArtfsError):
    """A remote side does not answer; trying again may help."""

    template = "{what} is out of reach: {why}"
    exit_code = 6


class StoreUnavailable(Unavailable):
    """The object store does not answer within the deadline."""

    template = "the object store {store} is out of reach: {why}"


class RegistryUnavailable(Unavailable):
    """The registry's database does not answer."""

    template = "the registry {registry} is out of reach: {why}"


class AccessDenied(ArtfsError):
    """Credentials are missing, wrong or insufficient."""

    template = "access to {what} is denied: {why}; check the credentials"
    errno = errno.EACCES
    exit_code = 6


class BucketNotFound(ArtfsError):
    """The bucket or container does not exist."""

    template = "the object store {store} does not exist; create the bucket, or bring the directory back"
    exit_code = 6


class DeadlineExceeded(Unavailable):
    """An operation did not finish in time."""

    template = "{what} did not finish within {seconds:.3g} s"
    errno = errno.EIO


# -- damaged data (exit 7) --------------------------------------------------------------------------------------


class Damaged(ArtfsError):
    """Bytes are not what their checksum says."""

    exit_code = 7


class CorruptPack(Damaged):
    """A pack in the store does not hold the bytes that the catalog's checksum names."""

    template = "pack {key} is damaged in the store at {where}: {why}"


class CorruptCatalog(Damaged):
    """A catalog is truncated or altered."""

    template = "the catalog {name} is damaged: {why}"


class ReferenceChanged(Damaged):
    """What a reference points to is no longer what was recorded."""

    template = "reference {uri} changed: expected {expected}, found {found}"


class ReferenceMissing(Damaged, FileNotFoundError):
    """What a reference points to is gone."""

    template = "reference {uri} is gone: {why}"
    errno = errno.EIO  # type: ignore[misc]  # OSError has it as an instance variable


class ReferenceUnsupported(ArtfsError, ValueError):
    """A reference whose scheme cannot be read."""

    template = "reference {uri} cannot be read: {why}"


class VerificationFailed(Damaged, ValueError):
    """A directory does not hold what the version says."""

    template = "{root} differs from {name}: {problems}"


# -- mount (exit 8) ---------------------------------------------------------------------------------------------


class MountFailed(ArtfsError):
    """A mount could not be made or ended."""

    template = "cannot mount on {mountpoint}: {why}"
    exit_code = 8


class UnmountFailed(ArtfsError):
    """A mount could not be ended."""

    template = "cannot unmount {mountpoint}: {why}"
    exit_code = 8


# -- local disk (exit 9) ----------------------------------------------------------------------------------------


class DiskFull(ArtfsError):
    """No room on a local disk."""

    template = "no space left in {where}: {why}"
    errno = errno.ENOSPC
    exit_code = 9


class LocalIOError(ArtfsError):
    """A local file or directory cannot be used."""

    template = "cannot use {path}: {why}"
    exit_code = 9


class TooManyOpenFiles(LocalIOError):
    """This process, or the machine, has no file descriptor left."""

    template = "cannot use {path}: too many files are open in this process or machine; raise RLIMIT_NOFILE"
    errno = errno.ENFILE
    """Also where it is the process's limit: whoever asked a mount is another process, which has not reached its own."""


def local_error(path: object, error: OSError, *, what: str = "what is to be written") -> DiskFull | LocalIOError:
    """A fault of the operating system at ``path`` as one of ours; a full disk says that ``what`` does not fit."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(where=path, why=f"{what} does not fit")
    return LocalIOError(path=path, why=error.strerror or error)


# -- configuration (exit 10) ------------------------------------------------------------------------------------


class ConfigurationError(ArtfsError):
    """Settings that cannot be used."""

    template = "configuration: {why}"
    exit_code = 10


class SchemaMismatch(ConfigurationError):
    """A registry, catalog or cache written by another release."""

    template = "{what} has schema {found}, this artfs knows {known}: {hint}"


class MissingExtra(ConfigurationError, ImportError):
    """An optional package is needed."""

    template = "{what} needs the package {package}; run: pip install 'artfs[{extra}]'"


# -- the Python API (exit 4) --------------------------------------------------------------------------------------
# Sentences, names and bases as in wandb 0.31.0, ``sdk/artifacts/exceptions.py``.


class ArtifactStatusError(ArtfsError, AttributeError):
    """An artifact is not in the state that a method or attribute (``name``) needs."""

    errno = errno.EINVAL
    exit_code = 4

    def __init__(self, message: str | None = None, /, **fields: object) -> None:
        super().__init__(message, **fields)
        self.name = str(fields.get("name", ""))


class ArtifactNotLoggedError(ArtifactStatusError):
    """A method or attribute that exists only once an artifact is logged."""

    template = (
        "'Artifact.{name}' used prior to logging artifact. "
        "Call Artifact.wait() before accessing logged artifact properties."
    )


class ArtifactFinalizedError(ArtifactStatusError):
    """A change to an artifact that was logged or finalized."""

    template = "'Artifact.{name}' used on logged artifact. Can't modify finalized artifact."


class WaitTimeoutError(ArtfsError, TimeoutError):
    """``wait(timeout)`` ended before the artifact was logged."""

    template = "{artifact} was not logged within {seconds:g} s; it goes on being logged"
    errno = errno.ETIMEDOUT  # type: ignore[misc]  # OSError has it as an instance variable


class NoRun(ArtfsError):
    """A call that needs a run which is not finished."""

    template = "{what} needs a run; call artfs.init() first"
    exit_code = 4
