"""The program with a home in a temporary directory, as a process of its own or, faster, called in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys

from checklogs import CheckedLog
from homes import settings_of, wait_until

from artfs.cli import program, run
from artfs.cli.mount import log_file
from artfs.fuse.mountpoint import mounted_on

PYTHON = sys.executable


class Program:
    """``artfs`` with ``home`` as ``ARTFS_HOME``; more environment by keyword."""

    def __init__(self, home, **environment):
        self.home = home
        self.environment = {
            "PATH": f"{os.path.dirname(PYTHON)}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ARTFS_HOME": str(home),
            "ARTFS_ENTITY": "acme",
            "ARTFS_CACHE_FREE": "0",
            **environment,
        }

    def with_environment(self, **more):
        other = Program(self.home)
        other.environment = self.environment | more
        return other

    def start(self, *arguments, **keywords):
        keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | keywords
        command = [PYTHON, "-m", "artfs.cli", *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment, **keywords)

    def run(self, *arguments, code=0, cwd=None, text=True, process=False):
        """What it did; its exit code must be ``code`` (None: any), and a traceback is never acceptable.

        ``process``: start one, which costs most of a second, as mounting, which forks, always does. Otherwise the log
        goes to pytest and not to stderr.
        """
        arguments = list(map(str, arguments))
        if process or "mount" in arguments:
            command = [PYTHON, "-m", "artfs.cli", *arguments]
            done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, timeout=100, check=False)
        else:
            done = self._call(arguments, cwd)
        if text:
            done.stdout = done.stdout.decode()
        done.stderr = done.stderr.decode()
        assert "Traceback" not in done.stderr, done.stderr
        assert code in {None, done.returncode}, (done.returncode, done.stdout, done.stderr)
        return done

    def _call(self, arguments, cwd):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        surroundings = dict(os.environ)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd or "."):
            os.environ.clear()
            os.environ.update(self.environment)
            try:
                run(program, arguments, prog_name="artfs")
            except SystemExit as end:
                code = end.code
            finally:
                os.environ.clear()
                os.environ.update(surroundings)
        return subprocess.CompletedProcess(arguments, code, out.buffer.getvalue(), err.buffer.getvalue())

    def out(self, *arguments, **keywords):
        """What it prints."""
        return self.run(*arguments, **keywords).stdout.strip()

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)

    def fails(self, code, *arguments, **keywords):
        """The one sentence that it says on standard error."""
        done = self.run(*arguments, code=code, **keywords)
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("artfs: ")
        return line.removeprefix("artfs: ")

    @contextlib.contextmanager
    def mounted(self, *arguments, expect=()):
        """Mount (the last argument is the directory); unmount in the end, and check the daemon's log."""
        directory = arguments[-1]
        directory.mkdir(exist_ok=True)
        log = CheckedLog(log_file(settings_of(self.home), str(directory)))
        for pattern, count in expect:
            log.expect(pattern, count)
        try:
            assert self.out("mount", *arguments) == ""
            yield Mount(directory, log)
            if mounted_on(str(directory)):
                self.run("umount", directory)
            assert not mounted_on(str(directory))
        finally:
            end(directory)
        log.check()


class Mount:
    """A directory on which something is mounted."""

    def __init__(self, path, log):
        self.path = path
        self.log = log

    def statistics(self):
        return json.loads(os.getxattr(self.path, "user.artfs.statistics"))


def daemons(directory):
    """Processes that serve a mount on ``directory``: their command line names it."""
    for process in os.listdir("/proc"):
        if process.isdecimal() and process != str(os.getpid()):
            with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as command:
                words = command.read().split(b"\0")
                if b"mount" in words and os.fsencode(directory) in words:
                    yield int(process)


def end(directory):
    """Whatever happened, leave no mount and no daemon."""
    while mounted_on(str(directory)):
        subprocess.run(["umount", "-l", directory], check=True)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not list(daemons(directory)), "the daemons end", 5)
    for pid in daemons(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
