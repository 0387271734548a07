"""Settings: defaults, overridden by the TOML file, by ``ARTFS_*`` in the environment, by options of the command line.

``ARTFS_HOME`` puts everything under one directory; without it the XDG directories are used.
"""

from __future__ import annotations

import getpass
import os
import re
import reprlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import attrs
import platformdirs
import tomli_w

from artfs.errors import ConfigurationError, InvalidName, LocalIOError
from artfs.names import DEFAULT_PROJECT, check_entity, check_project, is_text

GIB: Final = 1 << 30
LONGEST: Final = 1e9
"""Seconds that a time in the settings may not reach: 30 years."""


@attrs.frozen
class Settings:
    """Everything that can be configured, resolved. Paths are absolute; sizes are bytes; times are seconds."""

    config_file: Path
    data_dir: Path
    """Registry, store and staging of the embedded set-up."""
    cache_dir: Path
    runtime_dir: Path
    """One small file for each running mount."""
    staging_dir: Path
    log_dir: Path
    registry_url: str
    """SQLAlchemy URL. Never shown: it may hold a password."""
    store_url: str
    """``file:///dir``, ``s3://bucket/prefix``, ``gs://`` or ``az://``."""
    store_endpoint: str | None
    """URL of an S3-compatible server; None for the one that the AWS configuration names."""
    entity: str
    project: str
    cache_limit: int
    """The cache stays under this."""
    cache_free: int
    """The cache leaves this much room on its disk."""
    request_timeout: float
    """One request to the store."""
    read_deadline: float
    """One read through a mount, with all its retries."""
    gc_grace: float
    """How long a pack that nothing refers to is kept."""
    file_references: bool | None
    """Whether ``file://`` references may be read; None: only with the embedded registry."""

    @property
    def embedded(self) -> bool:
        """Whether the registry is a file of this user, so that its references come from this user."""
        return self.registry_url.startswith("sqlite")

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directories in which artfs keeps files of its own; some may lie in others."""
        store = urlsplit(self.store_url)
        stores = (Path(unquote(store.path)),) if store.scheme == "file" else ()
        return (self.data_dir, *stores, self.cache_dir, self.staging_dir, self.runtime_dir, self.log_dir)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of artfs that may lie beside those of others: the configuration, and an embedded registry."""
        # Not urlsplit: for SQLAlchemy a # is a letter.
        database = self.registry_url.partition(":///")[2].partition("?")[0]
        registries = (Path(database),) if self.embedded else ()
        return (self.config_file, *registries)


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LARGEST: Final = 1 << 62
"""Bytes: more does not go into the 64 bits of an offset."""


def parse_size(text: str | int) -> int:
    """Bytes in ``10GiB``, ``500M``, ``4096``; units are powers of 1024. Raises ConfigurationError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", str(text), re.IGNORECASE)
    if not match:
        raise ConfigurationError(why=f"{reprlib.repr(text)} is not a size such as 500M or 10GiB")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if size > _LARGEST:
        raise ConfigurationError(why=f"{reprlib.repr(text)} is larger than a size can be")
    return int(size)


def _seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < LONGEST:
        raise ConfigurationError(why=f"{reprlib.repr(value)} is not a number of seconds")
    return seconds


def _flag(value: object) -> bool:
    text = str(value).lower()
    if text not in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        raise ConfigurationError(why=f"{reprlib.repr(value)} is neither true nor false")
    return text in {"1", "true", "yes", "on"}


def _text(value: object) -> str:
    """``value`` itself, if it is a text; what is said of it does not repeat it, as it may hold a password."""
    if not isinstance(value, str):
        raise ConfigurationError(why="it is not a text in quotes")
    if not value:
        raise ConfigurationError(why="it is empty")
    if not is_text(value):
        raise ConfigurationError(why="it holds a NUL, or bytes that are not UTF-8")
    return value


def _path(value: object) -> Path:
    text = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    try:
        return Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError as error:  # ~ of somebody who does not exist, or has no home
        raise ConfigurationError(why=f"{text!r} begins with a home directory that is not known") from error


def check_endpoint(value: object) -> str:
    """``value`` itself, if it is the URL of a server: ``http[s]://host[:port]``. Raises ConfigurationError."""
    text = _text(value)
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket that is not closed
        good = False
    if not good or not text.isprintable() or " " in text:
        raise ConfigurationError(why="it is not the URL of a server, such as http://localhost:8333")
    return text


def _url(value: object) -> str:
    text = _text(value)
    try:
        urlsplit(text)
    except ValueError:  # its text may hold a password
        raise ConfigurationError(why="it is not a URL") from None
    return text


def _entity(value: object) -> str:
    return check_entity(_text(value))


def _project(value: object) -> str:
    return check_project(_text(value))


KEYS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "data_dir": _path,
    "cache_dir": _path,
    "runtime_dir": _path,
    "staging_dir": _path,
    "log_dir": _path,
    "registry_url": _text,  # SQLAlchemy says what is wrong with it: it takes what urlsplit does not
    "store_url": _url,
    "store_endpoint": lambda value: check_endpoint(value) if value != "" else None,
    "entity": _entity,
    "project": _project,
    "cache_limit": parse_size,
    "cache_free": parse_size,
    "request_timeout": _seconds,
    "read_deadline": _seconds,
    "gc_grace": _seconds,
    "file_references": _flag,
}
"""What the file and the environment may hold, with the parser of each."""


def load_settings(environ: Mapping[str, str] | None = None, /, **options: object) -> Settings:
    """Settings as they are in force; ``options`` win. Raises ConfigurationError, naming the source of a bad value."""
    env = os.environ if environ is None else environ
    home = _parsed("ARTFS_HOME", env["ARTFS_HOME"], "the environment") if env.get("ARTFS_HOME") else None
    config_file = _config_file(env, home)
    values = _defaults(home, env)
    for source, given in (
        (str(config_file), _read(config_file)),
        (
            "the environment",
            {key: env[f"ARTFS_{key.upper()}"] for key in KEYS if env.get(f"ARTFS_{key.upper()}")},
        ),
        ("the options", {key: value for key, value in options.items() if value is not None}),
    ):
        for key, value in given.items():
            if key not in KEYS:
                raise ConfigurationError(why=f"{source} has {key!r}, which artfs does not know")
            values[key] = _parsed(key, value, source)
    data_dir = values["data_dir"]
    values.setdefault("staging_dir", data_dir / "staging")
    values.setdefault("registry_url", f"sqlite:///{data_dir / 'registry.db'}")
    values.setdefault("store_url", (data_dir / "store").as_uri())
    return Settings(config_file=config_file, **values)


def _parsed(key: str, value: object, source: str) -> Any:
    """A value by the parser of its key, that of a path for what is no key; raises ConfigurationError naming both."""
    try:
        return KEYS.get(key, _path)(value)
    except (ConfigurationError, InvalidName) as error:
        why = error.fields["why"] if isinstance(error, ConfigurationError) else error
        raise ConfigurationError(why=f"{key} in {source}: {why}") from error


def _config_file(env: Mapping[str, str], home: Path | None) -> Path:
    if env.get("ARTFS_CONFIG"):
        file: Path = _parsed("ARTFS_CONFIG", env["ARTFS_CONFIG"], "the environment")
        return file
    return (home or Path(platformdirs.user_config_dir("artfs"))) / "config.toml"


def _defaults(home: Path | None, env: Mapping[str, str]) -> dict[str, Any]:
    if home is not None:
        paths = {
            "data_dir": home, "cache_dir": home / "cache", "runtime_dir": home / "run", "log_dir": home / "log",
        }  # fmt: skip
    else:
        paths = {
            "data_dir": Path(platformdirs.user_data_dir("artfs")),
            "cache_dir": Path(platformdirs.user_cache_dir("artfs")),
            "runtime_dir": Path(platformdirs.user_state_dir("artfs")) / "run",
            "log_dir": Path(platformdirs.user_log_dir("artfs")),
        }
    return paths | {
        "store_endpoint": None,
        "entity": _login(env),
        "project": DEFAULT_PROJECT,
        "cache_limit": 50 * GIB,
        "cache_free": 2 * GIB,
        "request_timeout": 30.0,
        "read_deadline": 60.0,
        "gc_grace": 24 * 3600.0,
        "file_references": None,
    }


def _login(env: Mapping[str, str]) -> str:
    try:
        return check_entity(env.get("USER") or getpass.getuser())
    except (InvalidName, KeyError, OSError):  # a uid without a name, as in many containers
        return f"uid{os.getuid()}"


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number of more digits than int() takes
        raise ConfigurationError(why=f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise LocalIOError(path=path, why=error.strerror) from error


def write_config(path: Path, values: Mapping[str, str | int | float | bool]) -> None:
    """Put ``values`` into the TOML file, keeping what else it holds; the file is for its owner only (0600)."""
    merged = _read(path) | dict(values)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            tomli_w.dump(merged, file)
        fresh.replace(path)
    except OSError as error:
        raise LocalIOError(path=path, why=error.strerror) from error
