import pytest

from artfs.digests import ManifestDigest, TreeDigest, md5_base64, md5_raw


def test_manifest_digest_of_an_empty_artifact_is_wandbs():
    assert ManifestDigest().hexdigest() == "64e7c61456b10382e2f3b571ac24b659"


def test_manifest_digest_vector():
    import hashlib

    def digest(data):
        return md5_base64(hashlib.md5(data).digest())

    whole = ManifestDigest()
    for path, data in (("A.txt", b"A"), ("a.txt", b"A"), ("b.txt", b"B"), ("sub/c.bin", b"\0\0\0")):
        whole.add(path, digest(data))
    assert whole.hexdigest() == "f3cdf2f2b713ceef15d927dcad91e331"


def test_entry_digest_vectors():
    import hashlib

    assert md5_base64(hashlib.md5(b"hello a").digest()) == "ZE0lNw+exNL8S11p3GrnjQ=="
    assert md5_base64(hashlib.md5(b"").digest()) == "1B2M2Y8AsgTpgAmY7PhCfg=="
    assert md5_raw("1B2M2Y8AsgTpgAmY7PhCfg==") == hashlib.md5(b"").digest()


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "1B2M2Y8AsgTpgAmY7PhCfg"])
def test_not_an_md5(text):
    with pytest.raises(ValueError, match=r".*"):
        md5_raw(text)


def test_tree_digest_vectors():
    import hashlib

    assert TreeDigest().hexdigest() == hashlib.sha256().hexdigest()
    tree = TreeDigest()
    tree.add("x", "run", "1B2M2Y8AsgTpgAmY7PhCfg==")
    tree.add("l", "to", "run")
    text = b"x\0run\x001B2M2Y8AsgTpgAmY7PhCfg==\nl\0to\0run\n"
    assert tree.hexdigest() == hashlib.sha256(text).hexdigest()
