"""``mount.artfs``: what mount(8), and so fstab and systemd, call for a file system of type ``artfs``.

``mount.artfs SOURCE DIR [-sfnv] [-N namespace] [-t type] [-o options]``, as mount(8) describes under "External
helpers". SOURCE is what ``artfs mount`` takes as NAME; ``artfs`` or ``none`` is everything. At boot there is hardly an
environment: the one option beyond those of ``artfs mount`` is ``home=DIR``, which sets ``ARTFS_HOME``.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Sequence

from artfs.cli.streams import open_standard_streams
from artfs.config import load_settings
from artfs.errors import ArtfsError, InvalidInput
from artfs.fuse import parse_options

# Exit codes of mount(8).
USAGE = 1
FAILURE = 32

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EVERYTHING = frozenset({"", "artfs", "none"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Mount as mount(8) asks; its exit code."""
    open_standard_streams()
    parser = argparse.ArgumentParser(prog="mount.artfs", description="Mount artfs artifacts; called by mount(8).")
    parser.add_argument("source", help="what to mount, as in `artfs mount NAME`; `artfs` for everything")
    parser.add_argument("directory", help="where")
    parser.add_argument("-s", action="store_true", dest="sloppy", help="pass over unknown options")
    parser.add_argument("-f", action="store_true", dest="fake", help="check only, do not mount")
    parser.add_argument("-n", action="store_true", help="accepted: there is no /etc/mtab to write")
    parser.add_argument("-v", action="store_true", help="accepted: the log says everything")
    parser.add_argument("-N", dest="namespace", help="refused: mount in another mount namespace")
    parser.add_argument("-t", dest="type", help="accepted: the type is artfs")
    parser.add_argument("-o", dest="options", default=[], action="append", help="as in `artfs mount -o`, and home=DIR")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as end:
        return USAGE if end.code else 0
    _complete_environment()
    try:
        _mount(given)
    except InvalidInput as error:
        print(f"mount.artfs: {error}", file=sys.stderr)
        return USAGE
    except ArtfsError as error:
        print(f"mount.artfs: {error}", file=sys.stderr)
        return FAILURE
    return 0


def _mount(given: argparse.Namespace) -> None:
    if given.namespace:
        raise InvalidInput("-N is not supported; run mount.artfs inside the namespace")
    if given.source.startswith("/"):
        raise InvalidInput(
            f"{given.source} is no artifact: mount(8) takes a name that exists in the current directory for a path"
        )
    words = [word for text in given.options for word in text.split(",") if word]
    for home in (word for word in words if word.startswith("home=")):
        directory = os.environ["ARTFS_HOME"] = home.removeprefix("home=")
        if not os.path.isabs(directory) or not os.path.isdir(directory):
            raise InvalidInput(f"{home} names no directory by its absolute path")
    # mount(8) says rw where nobody asked for ro, so it means nothing here.
    kept = [word for word in words if word != "rw" and not word.startswith("home=")]
    options = ",".join(kept)
    if given.fake:
        parse_options(options, sloppy=given.sloppy)
        return
    from artfs.cli.mount import mount

    name = "" if given.source in EVERYTHING else given.source
    mount(load_settings(), name, given.directory, options, sloppy=given.sloppy)


def _complete_environment() -> None:
    """HOME and PATH, which init leaves unset: the configuration is found from one, fusermount3 from the other."""
    os.environ.setdefault("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    known = os.environ.get("PATH", "").split(":")
    os.environ["PATH"] = ":".join([*filter(None, known), *(each for each in PATH.split(":") if each not in known)])


if __name__ == "__main__":
    sys.exit(main())
