"""Mistral against Transformers' Mistral: the window, prompts longer than it, and greedy texts that outgrow it."""

from __future__ import annotations

import pytest
import torch

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.logits import LENGTH, check_reference_logits, check_whose_reference
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio_mistral.tests.case import TINY


def test_the_reference_is_of_this_architecture(subject: Subject) -> None:
    check_whose_reference(subject)


def test_logits_are_the_references(subject: Subject) -> None:
    """Every tiny configuration, from each kind of checkpoint, at every position."""
    check_reference_logits(subject)


def test_the_prompts_are_longer_than_the_windows() -> None:
    windows = {name: raw["sliding_window"] for name, raw in TINY.items()}
    assert windows.pop("no-window") is None
    assert all(window < LENGTH for window in windows.values())
    assert all(window % 16 for window in windows.values()), "a window that ends where a block does shows less"


@pytest.mark.parametrize("tiny", ["window", "narrow", "itself-alone", "wide-heads"])
def test_what_lies_behind_the_window_does_not_matter_in_the_first_layer(subject: Subject, tiny: str) -> None:
    """The reach of n layers is n windows: a token further back changes nothing, the last one within reach does."""
    raw = TINY[tiny]
    reach = raw["num_hidden_layers"] * (raw["sliding_window"] - 1)
    model = BareModel(subject.plugin(), subject.checkpoint(tiny))
    ids = token_ids(LENGTH, raw["vocab_size"])
    whole = model.prefill(ids)
    changed = [(ids[0] + 1) % raw["vocab_size"], *ids[1:]]
    other = model.prefill(changed)
    if reach + 1 < LENGTH:
        assert torch.equal(whole[reach + 1 :], other[reach + 1 :])
    last = min(reach, LENGTH - 1)
    assert not torch.equal(whole[last], other[last])


@pytest.mark.parametrize("tiny", ["window", "narrow"])
def test_a_window_is_not_the_whole_context(subject: Subject, tiny: str) -> None:
    """The same weights without a window answer differently: the windows of this suite are really at work."""
    ids = token_ids(LENGTH, TINY[tiny]["vocab_size"])
    path = subject.checkpoint(tiny)
    within = BareModel(subject.plugin(), path).prefill(ids)
    without = BareModel(subject.plugin(), path, options={"sliding_window": None}).prefill(ids)
    window = TINY[tiny]["sliding_window"]
    assert_close(within[:window], without[:window], "before the window is full")
    assert not torch.allclose(within[window:], without[window:], atol=1e-2)
