"""The contract of plugins over the bridge: what does not ask for an architecture of its own."""

from __future__ import annotations

import pytest

from inference_pio.conformance.checks import CHECKS, Check
from inference_pio.conformance.logits import check_reference_logits
from inference_pio.conformance.subject import Subject

# C2 and C3 ask which architecture a plugin claims and which keys it reads, and the bridge leaves both to Transformers.
# C4 and C11 need real checkpoints' names and ranks; the bridge has one rank.
_OF_ARCHITECTURES = {"C2", "C3", "C4", "C11"}
CHECKED = [
    check
    for check in CHECKS
    if check.number not in _OF_ARCHITECTURES
    and check.run.__name__ not in ("check_whose_reference", "check_reference_logits", "check_chat")
]


@pytest.mark.parametrize("check", CHECKED, ids=lambda check: check.name)
def test_contract(check: Check, few: Subject) -> None:
    check.run(few)


def test_logits_of_all_models(subject: Subject) -> None:
    check_reference_logits(subject)


def test_what_is_left_out_is_what_was_meant() -> None:
    assert len(CHECKS) - len(CHECKED) == 11
