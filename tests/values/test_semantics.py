"""docs/SEMANTICS.md and the tests hold each other: a test that proves a sentence of it quotes the sentence.

A quotation is a comment line ``# SEMANTICS: words of the page``; the words must stand there, line breaks aside.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "SEMANTICS.md").read_text().split())
QUOTATIONS = [
    (path, match[1].strip())
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path != Path(__file__)
    for match in re.finditer(r"^\s*# SEMANTICS: (.+)$", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize(("path", "words"), QUOTATIONS, ids=lambda value: str(value)[-60:])
def test_what_a_test_quotes_stands_in_the_page(path, words):
    assert " ".join(words.split()) in PAGE, f"{path} quotes what docs/SEMANTICS.md does not say"


def test_every_section_is_quoted():
    sections = re.split(r"^## ", (ROOT / "docs" / "SEMANTICS.md").read_text(), flags=re.MULTILINE)[2:]
    for section in sections:
        text = " ".join(section.split())
        title = section.partition("\n")[0]
        assert any(" ".join(words.split()) in text for _, words in QUOTATIONS), f"no test quotes {title!r}"
