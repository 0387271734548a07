import stat

import pytest

from artfs.config import load_settings, parse_size, write_config
from artfs.errors import ConfigurationError


def test_home_puts_everything_in_one_place(tmp_path):
    settings = load_settings({"ARTFS_HOME": str(tmp_path), "USER": "ada"})
    assert settings.registry_url == f"sqlite:///{tmp_path}/registry.db"
    assert settings.store_url == (tmp_path / "store").as_uri()
    assert settings.cache_dir == tmp_path / "cache"
    assert settings.entity == "ada"
    assert settings.embedded


def test_file_then_environment_then_options(tmp_path):
    env = {"ARTFS_HOME": str(tmp_path)}
    write_config(tmp_path / "config.toml", {"entity": "from-file", "cache_limit": "1GiB", "project": "p"})
    assert load_settings(env).cache_limit == 1 << 30
    assert load_settings(env).entity == "from-file"
    assert load_settings(env | {"ARTFS_ENTITY": "env"}).entity == "env"
    assert load_settings(env | {"ARTFS_ENTITY": "env"}, entity="option").entity == "option"
    assert load_settings(env, entity=None).entity == "from-file"


def test_the_file_is_private_and_keeps_what_it_held(tmp_path):
    path = tmp_path / "sub" / "config.toml"
    write_config(path, {"entity": "a"})
    write_config(path, {"project": "b"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings = load_settings({"ARTFS_CONFIG": str(path), "ARTFS_HOME": str(tmp_path)})
    assert (settings.entity, settings.project) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("entity = 'a/b'", "entity in .*config.toml"),
        ("cache_limit = 'much'", "not a size"),
        ("read_deadline = 'soon'", "seconds"),
        ("file_references = 'maybe'", "true nor false"),
        ("nonsense = 1", "does not know"),
        ("= 3", "not TOML"),
    ],
)
def test_bad_values_name_their_source(tmp_path, text, words):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load_settings({"ARTFS_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), (7, 7), ("10 KiB", 10240), ("1.5g", 3 << 29), ("2TB", 2 << 40), ("3M", 3 << 20)]
)
def test_sizes(text, size):
    assert parse_size(text) == size
