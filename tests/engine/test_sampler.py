from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.engine.filters import candidates
from inference_pio.engine.ledger import Ledger, Usage
from inference_pio.engine.penalties import adjust_logits
from inference_pio.engine.random import uniform
from inference_pio.engine.sampler import draw, is_plain_greedy, sample
from inference_pio.engine.sequence import Request, Sequence
from inference_pio.errors import NonFiniteLogits
from inference_pio.sampling_params import SamplingParams

transformers = pytest.importorskip("transformers")


def sequence_of(params: SamplingParams, tokens=(1,), prompt_len=1, name="r", seed=0, index=0) -> Sequence:
    plain = is_plain_greedy(params)
    request = Request(
        name,
        prompt_len,
        params,
        seed,
        frozenset({0}),
        (0, *params.stop_token_ids),
        99,
        plain,
        Usage(Ledger(), 0),
    )
    return Sequence(request, index, 0, list(tokens))


def logits_of(seed: int, vocab: int, *, ties: bool = False) -> torch.Tensor:
    logits = 3 * torch.randn(vocab, generator=torch.Generator().manual_seed(seed))
    return logits.round() if ties else logits


def reference_filter(scores, params):
    """Transformers' warpers in this engine's order: what is left, and its probabilities."""
    from transformers.generation import logits_process as lp

    warpers = []
    if params.min_p:
        warpers.append(lp.MinPLogitsWarper(params.min_p))
    if params.top_k > 0:
        warpers.append(lp.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(lp.TopPLogitsWarper(params.top_p))
    if params.typical_p < 1:
        warpers.append(lp.TypicalLogitsWarper(params.typical_p))
    scores = scores[None].double()
    for warper in warpers:
        scores = warper(None, scores)
    return scores[0].softmax(-1)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "min_p": st.floats(0.001, 1.0),
        "top_k": st.integers(1, 60),
        "top_p": st.floats(0.01, 0.999),
        "typical_p": st.floats(0.05, 0.999),
    },
)


@settings(max_examples=300, deadline=None)
@given(filters=FILTERS, seed=st.integers(0, 10**6), vocab=st.sampled_from([2, 7, 50, 2000]))
def test_filters_keep_what_transformers_keeps(filters, seed, vocab):
    params, scores = SamplingParams(**filters), logits_of(seed, vocab)
    expected = reference_filter(scores, params)
    ids, weights = candidates(scores, params)
    ids = torch.arange(vocab) if ids is None else ids
    got = torch.zeros(vocab, dtype=torch.float64)
    got[ids] = weights / weights.sum()
    assert torch.equal(got > 0, expected > 0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)


def test_ties_at_the_border_of_top_k_all_stay():
    params = SamplingParams(top_k=2)
    ids, _ = candidates(torch.tensor([0.0, 1.0, 2.0, 1.0]), params)
    assert ids.tolist() == [2, 1, 3]


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.9999])
@pytest.mark.parametrize("width", [0.01, 3.0])
def test_a_nucleus_is_the_same_whether_found_in_the_head_or_by_sorting_everything(top_p, width):
    scores = width * torch.randn(30_000, generator=torch.Generator().manual_seed(1))
    ids, weights = candidates(scores, SamplingParams(top_p=top_p))
    ordered, order = scores.double().softmax(-1).sort(descending=True, stable=True)
    count = int(((ordered.cumsum(0) - ordered) < top_p).sum())
    assert abs(len(ids) - count) <= 1
    assert ids.tolist()[:count] == order.tolist()[: min(count, len(ids))]
    assert bool((weights[:-1] >= weights[1:]).all())


def test_penalties_equal_those_of_transformers_and_the_definition():
    from transformers.generation import logits_process as lp

    logits = logits_of(0, 40)
    tokens = [3, 5, 5, 7, 9, 9, 9, 3]
    params = SamplingParams(repetition_penalty=1.7)
    expected = lp.RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([tokens]), logits[None].clone())[0]
    torch.testing.assert_close(
        adjust_logits(logits, sequence_of(params, tokens, 4).request, tokens), expected
    )

    params = SamplingParams(frequency_penalty=0.5, presence_penalty=-0.25)
    counts = Counter(tokens[4:])
    expected = logits - torch.tensor([0.5 * counts[i] - 0.25 * (counts[i] > 0) for i in range(40)])
    torch.testing.assert_close(
        adjust_logits(logits, sequence_of(params, tokens, 4).request, tokens), expected
    )

    params = SamplingParams(repetition_penalty=1.3, logit_bias={5: 2.0, 11: -100.0, 12: -99.0})
    biased = logits.clone()
    biased[5] += 2
    biased[11] = -math.inf
    biased[12] -= 99
    expected = lp.RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([tokens]), biased[None])[0]
    torch.testing.assert_close(
        adjust_logits(logits, sequence_of(params, tokens, 4).request, tokens), expected
    )


def test_minimum_length_bans_ends_until_it_is_reached():
    params = SamplingParams(min_tokens=3, stop_token_ids=[4, 6])
    request = sequence_of(params).request
    early = adjust_logits(logits_of(0, 10), request, [1, 2, 3])
    assert torch.isinf(early).nonzero().flatten().tolist() == [0, 4, 6]
    assert not torch.isinf(adjust_logits(logits_of(0, 10), request, [1, 2, 3, 5])).any()


@pytest.mark.parametrize("filters", [{}, {"top_k": 12}, {"top_p": 0.9}, {"min_p": 0.02}, {"typical_p": 0.8}])
def test_the_draw_inverts_the_distribution(filters):
    params, scores = SamplingParams(**filters), logits_of(3, 200)
    expected = reference_filter(scores, params).numpy()
    points = 5_000
    # Evenly spaced quantiles hit each token as often as its probability says, to within one point.
    counts = np.bincount([draw(scores, params, (i + 0.5) / points) for i in range(points)], minlength=200)
    assert np.abs(counts - expected * points).max() <= 1.01


def test_random_draws_follow_the_distribution():
    params, scores = SamplingParams(top_k=8), logits_of(3, 50)
    expected = reference_filter(scores, params).numpy()
    draws = 10_000
    counts = np.bincount([draw(scores, params, uniform(11, 2, p)) for p in range(draws)], minlength=50)
    kept = expected > 0
    chi_square = ((counts - expected * draws)[kept] ** 2 / (expected * draws)[kept]).sum()
    assert counts[~kept].sum() == 0
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001


def test_the_largest_quantile_never_ends_on_a_banned_token():
    scores = torch.tensor([1.0, 2.0, -math.inf, -math.inf])
    assert draw(scores, SamplingParams(), 1 - 2**-53) == 1
    assert draw(scores, SamplingParams(top_p=0.9999), 1 - 2**-53) == 0
    assert draw(torch.tensor([-math.inf, 0.0]), SamplingParams(), 0.0) == 1


def test_uniform_is_uniform_in_each_argument_and_fixed_for_ever():
    for numbers in (
        [uniform(s, 0, 5) for s in range(4000)],
        [uniform(1, i, 5) for i in range(4000)],
        [uniform(1, 0, p) for p in range(4000)],
    ):
        counts, _ = np.histogram(numbers, bins=16, range=(0, 1))
        assert ((counts - 250) ** 2 / 250).sum() < 37.7  # 15 degrees of freedom, p = 0.001
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.06
        assert 0 <= min(numbers) <= max(numbers) < 1
    assert len({uniform(s, i, p) for s in (0, 1, -1) for i in range(3) for p in range(100)}) == 900
    assert uniform(2**63 - 1, 15, 131_072) == uniform(2**63 - 1, 15, 131_072)
    # Written down so that a change of the generator, which changes every seeded answer, does not go unseen.
    assert uniform(42, 0, 7) == GOLDEN


GOLDEN = 0.6424233675512125


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_fail_alone(bad):
    logits = torch.stack([logits_of(i, 3000) for i in range(4)])
    plain, sampled = SamplingParams(temperature=0), SamplingParams(seed=1)
    sequences = [sequence_of(p, name=f"r{i}") for i, p in enumerate((plain, plain, sampled, sampled))]
    clean = sample(logits, sequences, {})
    logits[1, 2999] = bad
    logits[2] = -math.inf
    result = sample(logits, sequences, {})
    assert [result[0], result[3]] == [clean[0], clean[3]]
    ((bad_1,), (bad_2,)) = result[1:3]
    assert isinstance(bad_1.error, NonFiniteLogits)
    assert isinstance(bad_2.error, NonFiniteLogits)
    assert str(bad_1.error) == "request r1, answer 0, position 1: the model's logits hold NaN or +inf"
    assert "only −inf" in str(bad_2.error)


def test_a_row_does_not_depend_on_its_neighbours():
    logits = torch.stack([logits_of(i, 5000) for i in range(12)])
    params = [
        SamplingParams(temperature=t, top_p=p, top_k=k, logprobs=2)
        for t, p, k in [(0.7, 1.0, 0), (1.0, 0.9, 0), (1.0, 1.0, 40), (2.0, 0.95, 0)] * 3
    ]
    sequences = [sequence_of(p, seed=i) for i, p in enumerate(params)]
    together = sample(logits, sequences, {})
    assert together == [sample(logits[i : i + 1], [sequences[i]], {})[0] for i in range(12)]
    assert sample(logits.flip(0), sequences[::-1], {})[::-1] == together


def test_plain_greedy_rows_are_recognised():
    assert is_plain_greedy(SamplingParams(temperature=1e-7, top_k=3))
    for extra in ({"logprobs": 0}, {"min_tokens": 1}, {"repetition_penalty": 1.1}, {"logit_bias": {1: 1.0}}):
        assert not is_plain_greedy(SamplingParams(temperature=0, **extra))
