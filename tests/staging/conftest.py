import shutil
import tempfile
from pathlib import Path

import pytest
from staging_base import Stage


@pytest.fixture
def stage(tmp_path):
    """Makes stages over a described base; closes them."""
    made = []

    def make(content=None, **keywords):
        directory = tmp_path / f"stage{len(made)}"
        directory.mkdir()
        made.append(Stage(directory, content, **keywords))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def memory_path():
    """A directory in memory: what survives a killed process does not depend on the disk, and a sync costs nothing."""
    path = Path(tempfile.mkdtemp(prefix="artfs-staging-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)
