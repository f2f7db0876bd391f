"""docs/claims.md has every claim, with its paper, and none that is not judged."""

from __future__ import annotations

import re
from pathlib import Path

from study.analysis.claims.registry import CLAIMS, claims_of
from tests.analysis.claims.studies import make

DOCS = Path(__file__).parents[1] / "docs" / "claims.md"


def test_every_claim_has_its_section_with_its_papers() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", DOCS.read_text(), re.M | re.S))
    sections.pop("How", None)
    assert list(sections) == list(CLAIMS)
    for found in claims_of((), make({})):
        for arxiv in found.statement.arxiv.split(", "):
            assert f"arXiv:{arxiv}" in sections[found.claim]
