"""A request either fits or is refused at once: none waits for what it will never get."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.errors import ContextLengthError
from inference_pio.sampling_params import SamplingParams

CONTEXT = 24

# Around what just fits, with as few blocks as hold one answer of that length.
_REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 3) | st.integers(CONTEXT - 3, CONTEXT + 2),
        st.integers(1, 3) | st.integers(CONTEXT - 3, 10 * CONTEXT),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(_REQUESTS, st.integers(0, 2), st.integers(1, 40), st.integers(1, 5))
def test_every_request_ends_or_is_refused_at_once(fake, requests, spare, budget, num_seqs):
    engine = fake.make_engine(
        max_model_len=CONTEXT,
        num_blocks=CONTEXT // 4 + spare,
        max_num_batched_tokens=budget,
        max_num_seqs=num_seqs,
    )
    expected = {}
    for number, (length, most, answers) in enumerate(requests):
        prompt = [1 + (number + place) % 40 for place in range(length)]
        params = SamplingParams(n=answers, temperature=0, max_tokens=most, ignore_eos=True)
        if length >= CONTEXT:
            with pytest.raises(ContextLengthError, match=f"{length} tokens, and at most {CONTEXT - 1} fit"):
                engine.add_request(str(number), prompt, params)
            continue
        engine.add_request(str(number), prompt, params)
        for index in range(answers):
            expected[str(number), index] = fake.greedy_reference(prompt, min(most, CONTEXT - length))
    updates = fake.run(engine)
    assert {answer: fake.tokens_of(told) for answer, told in updates.items()} == expected
    stats = engine.stats()
    assert (stats.blocks_used, stats.num_running, stats.num_waiting) == (0, 0, 0)
    # Whoever is preempted had been given a block since: it gets on.
    assert stats.preemptions <= sum(map(len, expected.values())) * max(1, num_seqs)
