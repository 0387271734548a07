"""The command line: one module a command, loaded when it is called."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

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


def run(command: click.Command, arguments: Sequence[str] | None = None, **extra: Any) -> NoReturn:
    """Run a command and exit; the one place where errors become sentences and exit codes."""
    try:
        command.main(args=None if arguments is None else list(arguments), standalone_mode=False, **extra)
        if sys.stdout is not None:  # it was closed before we began
            sys.stdout.flush()
    except ArtfsError as error:
        fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", 130)
    except BrokenPipeError:
        # The reader went away, as `artfs ls | head` does: nothing to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # what else can fail is an ArtfsError by now
        fail(f"{error.filename or _nameless()}: {error.strerror}", 9)
    sys.exit(0)


def _nameless() -> str:
    """What an error that names no file is about."""
    try:
        os.getcwd()
    except OSError:
        return "the working directory"
    return "standard output"


def fail(sentence: str, exit_code: int) -> NoReturn:
    """Say one sentence on standard error and exit."""
    click.echo(f"artfs: {sentence}", err=True)
    sys.exit(exit_code)


def main() -> NoReturn:
    """Entry point of ``artfs``."""
    # A command makes some 100,000 objects, most of them by importing SQLAlchemy, and they stay. Looking for garbage
    # among them at every 700th, and among all of them at the end, takes a third of the 0.7 CPU seconds of `artfs ls`.
    gc.set_threshold(_COLLECT_EVERY)
    atexit.register(gc.freeze)
    run(program, prog_name="artfs")
