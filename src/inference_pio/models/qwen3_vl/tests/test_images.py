"""Prompts with images: logits against Transformers' model, however the prompt is cut."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.models.qwen3_vl.tests.case import IMAGE, TINY
from inference_pio.models.qwen3_vl.tests.prompts import Prompt, in_pieces, run, write

# Pieces of a prompt: tokens of text, or the grid of an image; sides are whole tokens for merge 1, 2 and 3.
SHAPES: dict[str, list[Any]] = {
    "image in front": [(1, 6, 12), 9],
    "image at the end": [17, (1, 12, 6)],
    "image in the middle": [5, (1, 12, 12), 8],
    "two images of different grids": [3, (1, 6, 18), 4, (1, 12, 6), 6],
    "one token between two images": [2, (1, 6, 6), 1, (1, 12, 12), 3],
    "nothing but an image": [(1, 6, 6)],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tiny", TINY)
def test_one_pass(subject: Subject, tiny: str, shape: str) -> None:
    prompt = write(TINY[tiny], SHAPES[shape])
    expected = subject.reference(tiny).logits_with(prompt.token_ids, prompt.pixels, prompt.grids)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    assert_close(in_pieces(bare, prompt, []), expected, f"{tiny}: {shape}")


@pytest.mark.parametrize("tiny", TINY)
def test_a_prompt_in_chunks_and_then_token_by_token(subject: Subject, tiny: str) -> None:
    """Borders lie in an image, in front of one, behind one, and so that a chunk is within an image."""
    prompt = write(TINY[tiny], SHAPES["two images of different grids"])
    first, second = prompt.media
    answer = [one if one != IMAGE else 0 for one in token_ids(6, 272, seed=5)]
    whole = [*prompt.token_ids, *answer]
    expected = subject.reference(tiny).logits_with(whole, prompt.pixels, prompt.grids)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    end = first.start + first.length
    for cuts in (
        [],
        [first.start + 1],
        [first.start, end],
        [first.start + 1, first.start + 2, second.start + 1],
        [end + 1, second.start],
    ):
        assert_close(in_pieces(bare, prompt, cuts, answer), expected, f"{tiny}: cut at {cuts}")
    single = in_pieces(bare, prompt, list(range(1, len(prompt.token_ids))), answer)
    assert_close(single, expected, f"{tiny}: token by token")


@pytest.mark.parametrize("tiny", ["grouped", "multi-query"])
def test_company_changes_nothing(subject: Subject, tiny: str) -> None:
    """A step with one prompt's image, another's answer and a text gives each what it gets alone."""
    raw = TINY[tiny]
    prompts = [
        write(raw, [4, (1, 12, 6), 3], seed=1),
        write(raw, [(1, 6, 6), 5], seed=2),
        write(raw, [20], seed=3),
    ]
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny), sequences=3)
    answer = [11, 12]
    run(bare, prompts, [(1, prompts[1].token_ids)])
    steps = [(2, prompts[2].token_ids), (1, answer[:1]), (0, prompts[0].token_ids)]
    text, answered, image = run(bare, prompts, steps)
    later = run(bare, prompts, [(0, answer), (1, answer[1:])])
    reference = subject.reference(tiny)
    assert_close(text, reference.logits(prompts[2].token_ids), f"{tiny}: the text")
    for prompt, found in ((prompts[0], [image, later[0]]), (prompts[1], [answered, later[1]])):
        whole = [*prompt.token_ids, *answer]
        expected = reference.logits_with(whole, prompt.pixels, prompt.grids)
        rows = torch.cat(found)
        assert_close(rows, expected[-len(rows) :], f"{tiny}: {prompt.grids}")


def test_pixels_matter_and_so_does_each_part_of_their_features(subject: Subject) -> None:
    """The check of the checks: another image, features without DeepStack or plain positions answer differently."""
    raw = TINY["grouped"]
    prompt, other = (write(raw, SHAPES["image in the middle"], seed) for seed in (0, 1))
    mixed = Prompt(prompt.token_ids, other.media)
    bare = BareModel(subject.plugin(), subject.checkpoint("grouped"))
    expected = in_pieces(bare, prompt, [])
    assert (in_pieces(bare, mixed, []) - expected).abs().max() > 0.1
    encode = bare.model.encode_media
    for part in range(3):

        def without(*args: Any, part: int = part) -> torch.Tensor:
            features: torch.Tensor = encode(*args).clone()
            features[:, 64 * part : 64 * (part + 1)] = 0
            return features

        bare.model.encode_media = without
        changed = in_pieces(bare, prompt, [])
        assert torch.equal(changed[:5], expected[:5])
        assert (changed - expected).abs().max() > 0.1, f"part {part} of the features changes nothing"


def test_bfloat16_is_as_near_to_float32_as_transformers_is(subject: Subject) -> None:
    """Mean and largest error of logits over all shapes of prompts, ours and theirs, of the same weights in bfloat16."""
    reference = subject.reference("grouped")
    rounded = deepcopy(reference)
    for parameter in rounded.model.parameters():  # frequencies are buffers, and stay float32 in use
        parameter.data = parameter.data.bfloat16()
    bare = BareModel(subject.plugin(), subject.checkpoint("grouped"), dtype=torch.bfloat16)
    ours, theirs = [], []
    for seed, shape in enumerate(SHAPES.values()):
        prompt = write(TINY["grouped"], shape, seed)
        asked = (prompt.token_ids, prompt.pixels, prompt.grids)
        exact = reference.logits_with(*asked)
        theirs.append((rounded.logits_with(*asked).float() - exact).abs().flatten())
        ours.append((in_pieces(bare, prompt, []) - exact).abs().flatten())
    mine, other = torch.cat(ours), torch.cat(theirs)
    assert other.mean() > 0
    assert mine.mean() <= 1.05 * other.mean()
    assert mine.max() <= 1.25 * other.max()
