import stat
from pathlib import Path

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
        (f"cache_limit = {'9' * 5000}", "not TOML"),
        (f"cache_limit = '{'9' * 400}'", "cache_limit .* larger than a size can be"),
        ("entity = 5", "entity in .*config.toml: it is not a text"),
        ("project = true", "project .* not a text"),
        ("entity = ['a']", "entity .* not a text"),
        ("entity = ''", "entity .* it is empty"),
        ("cache_dir = 5", "cache_dir .* not a text"),
        ("cache_dir = []", "cache_dir .* not a text"),
        ("cache_dir = ''", "cache_dir .* it is empty"),
        ("cache_dir = '~nouser/x'", "cache_dir .* home directory that is not known"),
        (r'cache_dir = "/a\u0000"', "cache_dir .* NUL"),
        ("data_dir = 2020-01-01", "data_dir .* not a text"),
        (r'registry_url = "sqlite:///a\u0000"', "registry_url .* NUL"),
        ("store_url = 'file://['", "store_url .* not a URL"),
        ("store_endpoint = 5", "store_endpoint .* not a text"),
        ("store_endpoint = 'nonsense'", "store_endpoint .* not the URL of a server"),
        ("store_endpoint = 'localhost:8333'", "store_endpoint .* not the URL of a server"),
        ("store_endpoint = 'http://127.0.0.1:notaport'", "store_endpoint .* not the URL of a server"),
        ("store_endpoint = 'http://'", "store_endpoint .* not the URL of a server"),
    ],
)
def test_bad_values_name_their_source(tmp_path, text, words):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load_settings({"ARTFS_HOME": str(tmp_path)})


@pytest.mark.parametrize("key", ["ARTFS_HOME", "ARTFS_CONFIG", "ARTFS_CACHE_DIR", "ARTFS_REGISTRY_URL"])
def test_bad_bytes_in_the_environment_name_their_key(tmp_path, key):
    env = {"ARTFS_HOME": str(tmp_path), key: "sqlite:///\udcff/x"}
    with pytest.raises(ConfigurationError, match=f"{key}|{key[6:].lower()} in the environment: .*UTF-8"):
        load_settings(env)


@pytest.mark.parametrize("key", ["ARTFS_HOME", "ARTFS_CONFIG", "ARTFS_CACHE_DIR"])
def test_a_home_directory_of_nobody(tmp_path, key):
    with pytest.raises(ConfigurationError, match=r"in the environment: .* home directory that is not known"):
        load_settings({"ARTFS_HOME": str(tmp_path), key: "~nouser/x"})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8333", "https://s3.example.org", "https://example.org/storage/s3"])
def test_endpoints(tmp_path, url):
    assert load_settings({"ARTFS_HOME": str(tmp_path)}, store_endpoint=url).store_endpoint == url


def test_an_endpoint_can_be_taken_back(tmp_path):
    (tmp_path / "config.toml").write_text("store_endpoint = ''")
    assert load_settings({"ARTFS_HOME": str(tmp_path)}).store_endpoint is None


def test_a_registry_url_is_sqlalchemys_to_judge(tmp_path):
    url = "postgresql://u:p[ss]@host/db"
    assert load_settings({"ARTFS_HOME": str(tmp_path)}, registry_url=url).registry_url == url
    settings = load_settings({"ARTFS_HOME": str(tmp_path)}, registry_url="sqlite:////srv/a#b/r.db?timeout=3")
    assert Path("/srv/a#b/r.db") in settings.files


def test_settings_know_where_artfs_keeps_its_files(tmp_path):
    settings = load_settings({"ARTFS_HOME": str(tmp_path / "home")}, store_url="file:///srv/my%20store")
    assert tmp_path / "home" in settings.directories
    assert Path("/srv/my store") in settings.directories
    assert settings.files == (tmp_path / "home/config.toml", tmp_path / "home/registry.db")
    shared = load_settings({"ARTFS_HOME": str(tmp_path)}, store_url="s3://b/p", registry_url="postgresql://h/artfs")
    assert shared.files == (tmp_path / "config.toml",)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), (7, 7), ("10 KiB", 10240), ("1.5g", 3 << 29), ("2TB", 2 << 40), ("3M", 3 << 20)]
)
def test_sizes(text, size):
    assert parse_size(text) == size
