import pickle

import pytest

from artfs import errors


def all_errors(cls=errors.ArtfsError):
    yield cls
    for child in cls.__subclasses__():
        yield from all_errors(child)


@pytest.mark.parametrize("cls", sorted(set(all_errors()), key=lambda cls: cls.__name__))
def test_every_error_has_its_numbers_and_survives_pickling(cls):
    assert 1 <= cls.exit_code <= 10
    assert isinstance(cls.errno, int)
    error = cls("what happened", path="x")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error) == "what happened"
    assert copy.fields == {"path": "x"}


def test_the_template_is_filled():
    error = errors.SourceUnreadable(path="/x", why="gone")
    assert str(error) == "cannot read /x: gone"
    assert pickle.loads(pickle.dumps(error)).fields == {"path": "/x", "why": "gone"}
