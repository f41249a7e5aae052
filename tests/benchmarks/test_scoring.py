"""Likelihoods and the tasks made of them against a straightforward computation by Transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.scoring import Scorer, split
from inference_pio.benchmarks.tasks import likelihood
from inference_pio.benchmarks.workload import Workload
from inference_pio.models.llama.benchmarks.workloads import SUITE

LAMBADA = [
    {"text": "He looked at the sea and the sea looked back at him"},
    {"text": "She gave the ball to her brother, and then took back the ball"},
    {"text": "one two three two one"},
]
MMLU = [
    {"question": "2 + 2?", "subject": "small_sums", "choices": ["4", "5", "22", "0"], "answer": 0},
    {"question": "Is water wet?", "subject": "wet_things", "choices": ["no", "yes", "a", "b"], "answer": 1},
    {"question": "3 - 1?", "subject": "small_sums", "choices": ["4", "1", "2", "0"], "answer": 2},
]
EXAMPLES = [
    {"question": f"{n} + 1?", "subject": "small_sums", "choices": ["7", "8", "9", "6"], "answer": n % 4}
    for n in range(5)
]


@pytest.fixture(scope="module")
def loaded(tiny_llama: Path) -> Iterator[LoadedModel]:
    settings = Settings(model=str(tiny_llama), dtype="float32", device="cpu")
    with settings.load(SUITE, Workload(1024, 32, 4), text=True) as model:
        yield model


@pytest.fixture(scope="module")
def reference(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)


def logprobs_of(reference: Any, ids: list[int]) -> torch.Tensor:
    """[T - 1, V]: of each token after the first, by one plain pass."""
    with torch.inference_mode():
        return reference(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)


def test_what_is_shared_with_the_sequence_before_changes_nothing(loaded: LoadedModel, reference: Any) -> None:
    draw = torch.Generator().manual_seed(5)
    first = torch.randint(0, 272, (600,), generator=draw).tolist()
    scorer = Scorer(loaded, 700)
    for ids, start in (
        (first, 1),
        (first[:400] + first[:200], 400),  # begins alike
        (first[:400] + first[:200], 599),  # is the same
        (first[:10], 1),  # is its beginning
        (first, 300),
    ):
        scores = scorer.scores(ids, start)
        expected = logprobs_of(reference, ids)[start - 1 :]
        following = torch.tensor(ids[start:])
        wanted = -expected.gather(1, following[:, None])[:, 0]
        torch.testing.assert_close(scores.nll, wanted, atol=2e-4, rtol=1e-4)
        assert torch.equal(scores.best, expected.argmax(-1))


def test_only_what_is_new_is_computed(loaded: LoadedModel) -> None:
    scorer, counts = Scorer(loaded, 600), []
    hook = loaded.model.register_forward_pre_hook(lambda _, args: counts.append(len(args[0].token_ids)))
    ids = [index % 200 for index in range(500)]
    scorer.after(ids)
    scorer.after([*ids, 7, 8])
    hook.remove()
    assert counts == [256, 244, 2]


def test_one_token_each_and_several_give_the_same_likelihood(loaded: LoadedModel) -> None:
    scorer = Scorer(loaded, 200)
    context = list(range(50))
    one = scorer.continuations(context, [[7], [9]])
    several = scorer.continuations(context, [[7], [9, 11]])
    assert one[0].logprob == pytest.approx(several[0].logprob, abs=1e-4)
    assert several[1].logprob < one[1].logprob


def test_a_context_that_is_too_long_loses_its_beginning(loaded: LoadedModel) -> None:
    ids = [index % 200 for index in range(300)]
    short, long = Scorer(loaded, 64), Scorer(loaded, 512)
    assert short.continuations(ids, [[7, 8]])[0].logprob == pytest.approx(
        long.continuations(ids[-63:], [[7, 8]])[0].logprob, abs=1e-4
    )


def test_white_space_belongs_to_what_follows(loaded: LoadedModel) -> None:
    assert split(loaded, "the sea ", "side") == split(loaded, "the sea", " side")
    context, word = split(loaded, "the sea", " side")
    assert loaded.plugin.detokenize(context + word) == "the sea side"
    assert loaded.plugin.detokenize(word) == " side"


def test_lambada_is_what_a_plain_computation_says(loaded: LoadedModel, reference: Any) -> None:
    found = likelihood.lambada(loaded, Scorer(loaded, 256), LAMBADA)
    for row, said in zip(LAMBADA, found, strict=True):
        ids = loaded.plugin.tokenize(row["text"])
        word = loaded.plugin.tokenize(row["text"][: row["text"].rindex(" ")])
        logprobs = logprobs_of(reference, ids)[len(word) - 1 :]
        following = torch.tensor(ids[len(word) :])
        total = logprobs.gather(1, following[:, None]).sum().item()
        assert said.logprob == pytest.approx(total, abs=1e-3)
        assert said.is_greedy == bool((logprobs.argmax(-1) == following).all())


def test_lambada_counts_a_word_that_the_model_says(loaded: LoadedModel, reference: Any) -> None:
    """The tiny model never knows a word: one that it says itself, found by plain greedy decoding, must count."""
    ids = loaded.plugin.tokenize("He looked at the sea")
    scorer = Scorer(loaded, 64)
    said = int(logprobs_of(reference, [*ids, 0])[-1].argmax())
    [right, wrong] = scorer.continuations(ids, [[said], [(said + 1) % 272]])
    assert (right.is_greedy, wrong.is_greedy) == (True, False)


def test_mmlu_is_what_a_plain_computation_says(loaded: LoadedModel, reference: Any) -> None:
    right, shortened = likelihood.mmlu(loaded, Scorer(loaded, 1024), MMLU, EXAMPLES, 1024)
    expected = []
    for row in MMLU:
        shots = [one for one in EXAMPLES if one["subject"] == row["subject"]]
        prompt = likelihood.mmlu_prompt(row, shots)
        totals = []
        for letter in "ABCD":
            ids = loaded.plugin.tokenize(f"{prompt} {letter}")
            start = len(loaded.plugin.tokenize(prompt))
            logprobs = logprobs_of(reference, ids)[start - 1 :]
            totals.append(logprobs.gather(1, torch.tensor(ids[start:])[:, None]).sum().item())
        expected.append(totals.index(max(totals)) == row["answer"])
    assert right == expected
    assert shortened == 1  # nothing is known of wet things


def test_the_prompt_is_the_authors() -> None:
    assert likelihood.mmlu_prompt(MMLU[0], EXAMPLES[:1]) == (
        "The following are multiple choice questions (with answers) about small sums.\n\n"
        "0 + 1?\nA. 7\nB. 8\nC. 9\nD. 6\nAnswer: A\n\n"
        "2 + 2?\nA. 4\nB. 5\nC. 22\nD. 0\nAnswer:"
    )


def test_examples_give_way_to_the_question(loaded: LoadedModel) -> None:
    shots = [one for one in EXAMPLES if one["subject"] == "small_sums"]
    room = len(loaded.plugin.tokenize(likelihood.mmlu_prompt(MMLU[0], shots[:2]))) + 1
    _, shortened = likelihood.mmlu(loaded, Scorer(loaded, room), MMLU[:1], EXAMPLES, room)
    assert shortened == 1
