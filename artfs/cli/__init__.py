"""The command line: one module a command, loaded when it is called."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from artfs.cli.streams import flush_standard_streams, open_standard_streams
from artfs.errors import ArtfsError, ConfigurationError

COMMANDS: Final = {
    "init": "Choose where versions are kept",
    "log": "Log a file or directory as a new version",
    "mount": "Show a version, or all of them, as a directory",
    "umount": "End a mount",
    "ls": "List what there is, or the files of a version",
    "info": "Show what is known of a version or a mount",
    "cat": "Write a file of a version to standard output",
    "diff": "Compare two versions",
    "download": "Copy a version's files into a directory",
    "checkout": "Make a directory hold exactly a version's files",
    "verify": "Compare a directory with a version",
    "lineage": "Show what a version was made of, and what was made of it",
    "status": "Show what has been changed in a writable mount",
    "drafts": "List drafts, and what writable mounts left behind",
    "commit": "Make a version of a draft",
    "discard": "Delete a draft",
    "alias": "Give or take aliases of a version",
    "tag": "Give or take tags of a version",
    "link": "Link a version into a portfolio",
    "unlink": "Take a version out of a portfolio",
    "rm": "Delete a version",
    "cache": "Look after the cache",
    "gc": "Delete what nothing refers to",
    "doctor": "Check that everything artfs needs is there",
}
"""Every command with what ``artfs --help`` says of it; each is ``artfs.cli.<name>:command``."""


_COMPLETING: Final = "_ARTFS_COMPLETE"
"""In the environment while a shell asks for completions."""
_COLLECT_EVERY: Final = 10_000
"""New objects, of those that may refer to others, after which Python looks for garbage among them."""


class _Commands(click.Group):
    """Knows the commands without importing them: ``artfs --help`` takes 0.1 s, not one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"artfs.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--config", type=click.Path(dir_okay=False), help="Configuration file to use.")
@click.option("-v", "--verbose", is_flag=True, help="Log what is being done to standard error.")
@click.version_option(package_name="artfs", prog_name="artfs")
@click.pass_context
def program(context: click.Context, config: str | None, verbose: bool) -> None:
    """Versioned datasets and models as ordinary directories.

    A version is named entity/project/collection:alias; entity and project may be left out, and so may ":latest".

    \b
    Exit codes: 0 success, 1 other failure, 2 usage, 3 not found, 4 refused input, 5 conflict, 6 store or registry
    out of reach or access denied, 7 damaged data, 8 mount, 9 local disk, 10 configuration, 130 interrupted,
    141 the reader of the output went away.
    """
    if config is not None:
        os.environ["ARTFS_CONFIG"] = os.path.abspath(config)
    chosen = os.environ.get("ARTFS_CONFIG")
    if chosen and context.invoked_subcommand != "init" and not os.path.exists(os.path.expanduser(chosen)):
        # With the defaults instead, a slip of the pen would log into another registry.
        raise ConfigurationError(why=f"{chosen} does not exist; `artfs --config {shlex.quote(chosen)} init` makes it")
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="artfs: %(message)s")


def run(command: click.Command, arguments: Sequence[str] | None = None, *, prog_name: str = "artfs") -> NoReturn:
    """Run a command and exit; the one place where errors become sentences and exit codes."""
    try:
        code = _invoke(command, arguments, prog_name)
        if sys.stdout is not None:  # it was closed before we began
            sys.stdout.flush()
    except ArtfsError as error:
        fail(str(error), error.exit_code)
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        leave(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        with contextlib.suppress(OSError):
            click.echo(err=True)  # after the ^C of a terminal
        fail("interrupted", 130)
    except BrokenPipeError:  # the reader went away, as `artfs ls | head` does: nothing to say
        leave(141)
    except OSError as error:  # what else can fail is an ArtfsError by now
        fail(f"{error.filename or _nameless()}: {error.strerror}", 9)
    leave(code)


def _invoke(command: click.Command, arguments: Sequence[str] | None, prog_name: str) -> int:
    """The exit code. As click's own ``main``, which however ends the program with 1 at a broken pipe."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if _COMPLETING in os.environ:
        command.main(given, prog_name)
    try:
        with command.make_context(prog_name, given) as context:
            command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _nameless() -> str:
    """What an error that names no file is about."""
    try:
        os.getcwd()
    except OSError:
        return "the working directory"
    return "standard output"


def fail(sentence: str, exit_code: int) -> NoReturn:
    """Say one sentence on standard error and exit."""
    with contextlib.suppress(OSError):
        click.echo(f"artfs: {sentence}", err=True)
    leave(exit_code)


def leave(exit_code: int) -> NoReturn:
    """Exit with this code, whatever becomes of what is still to be written."""
    flush_standard_streams()
    sys.exit(exit_code)


def main() -> NoReturn:
    """Entry point of ``artfs``."""
    open_standard_streams()
    # A command ends with some 50,000 objects that stay, most of them SQLAlchemy's. Looking for garbage among them at
    # every 700th, and among all of them at the end, takes a quarter of the CPU time of `artfs ls`: 0.62 s with it, 0.47
    # without.
    gc.set_threshold(_COLLECT_EVERY)
    atexit.register(gc.freeze)
    run(program)
