"""The real W&B client, offline and in another process: what it writes, and what it reads.

As a program: answers requests (pickles on standard input) until there are no more.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path


class WandbClient:
    def __init__(self, home):
        self.home = home

    def __enter__(self):
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_DATA_DIR": str(self.home / "data"),
            "WANDB_CACHE_DIR": str(self.home / "cache"),
            "WANDB_CONFIG_DIR": str(self.home / "config"),
            "WANDB_DIR": str(self.home),
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=self.home, env=environment
        )
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def _ask(self, *request):
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        answer = pickle.load(self.process.stdout)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def write(self, case, directory):
        """Add what ``case`` (a function of media_cases) makes to an artifact; its files are then in ``directory``."""
        self._ask("write", case, str(directory))

    def read(self, directory, path):
        """A description (media_cases.describe) of the value at ``path``."""
        return self._ask("read", str(directory), path)

    def table_json(self, **arguments):
        """The JSON of a table made with ``arguments``, or the error that it raises."""
        return self._ask("table", arguments)


class Entry:
    def __init__(self, path):
        self.path = path

    def download(self):
        return str(self.path)


class Source:
    """What from_json of the client's types wants of an artifact."""

    def __init__(self, root):
        self.root = Path(root)
        self.manifest = self

    def get_entry(self, path):
        return Entry(self.root / path)

    def get_entries_in_directory(self, directory):
        return [Entry(file.relative_to(self.root)) for file in sorted((self.root / directory).iterdir())]

    def get(self, path):
        from wandb.sdk.data_types.base_types.wb_value import WBValue

        json_obj = json.loads((self.root / path).read_text())
        for name, cls in WBValue.type_mapping().items():
            if str(path).endswith(f".{name}.json"):
                return cls.from_json(json_obj, self)
        return None


def write(case, directory):
    import wandb
    from media import media_cases

    artifact = wandb.Artifact("parity", "dataset")
    getattr(media_cases, case)(wandb, artifact)
    for path, entry in artifact.manifest.entries.items():
        target = Path(directory, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.local_path, target)


def read(directory, path):
    from media import media_cases

    return media_cases.describe(Source(directory).get(path))


def table(arguments):
    import wandb

    try:
        return json.dumps(wandb.Table(**arguments).to_json(wandb.Artifact("parity", "dataset")), sort_keys=True)
    except TypeError as error:
        return type(error).__name__


def serve():
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the client prints is no answer
    commands = {"write": write, "read": read, "table": table}
    while True:
        try:
            command, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = commands[command](*arguments)
        except Exception as error:  # noqa: BLE001  # handed on to the test
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        answers.write(pickle.dumps(answer))
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    serve()
