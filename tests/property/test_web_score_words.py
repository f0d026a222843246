"""Whatever a score gives for its reasons is said in the reader's language."""

from __future__ import annotations

import re

from hypothesis import given, settings

from protocol.score import Evidence, score
from tests.property.test_score import evidence
from web.pages.score_words import sentence
from web.words import words_of

EN, PT = words_of("en"), words_of("pt")


@settings(deadline=None, max_examples=40)
@given(evidence)
def test_every_reason_is_translated_with_its_numbers(known: Evidence) -> None:
    for reason in score(known).reasons:
        said = sentence(reason, PT)
        assert said not in (reason, sentence(reason, EN)), reason
        assert re.findall(r"\d+", said.replace(".", "")) == re.findall(r"\d+", reason.replace(",", "")) or (
            reason == "1 caller has paid it"
        )
