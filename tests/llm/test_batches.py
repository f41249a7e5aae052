"""Many requests at once: each is read as its answers come, and its times are its own."""

from __future__ import annotations

from pathlib import Path

from inference_pio import LLM, SamplingParams

PROMPTS = [f"Prompt number {i} says" for i in range(24)]
LONG = 200


def test_stop_strings_end_every_request_of_a_batch_in_time(checkpoint: Path) -> None:
    """A request that is not read while another one runs would go on to `max_tokens` behind its stop string."""
    with LLM(str(checkpoint), dtype="float32", max_num_seqs=8, kv_cache_memory_gb=0.02) as llm:
        free = SamplingParams(temperature=0, max_tokens=LONG, ignore_eos=True)
        texts = [output.outputs[0].text for output in llm.generate(PROMPTS, free)]
        stops = [
            SamplingParams(temperature=0, max_tokens=LONG, ignore_eos=True, stop=text[4:6]) for text in texts
        ]
        before = llm.plugin.get_compute_stats()["generation_tokens"]
        stopped = llm.generate(PROMPTS, [free, *stops[1:]])
        generated = llm.plugin.get_compute_stats()["generation_tokens"] - before
    assert all(output.outputs[0].finish_reason == "stop" for output in stopped[1:])
    assert all(text.startswith(output.outputs[0].text) for text, output in zip(texts, stopped, strict=True))
    wanted = sum(len(output.outputs[0].token_ids) for output in stopped)
    # The engine may be a few steps ahead of its reader, never a whole answer.
    assert generated < wanted + 24 * 16


def test_times_are_those_of_the_engine_whatever_is_read_first(checkpoint: Path) -> None:
    with LLM(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.02) as llm:
        params = [SamplingParams(temperature=0, max_tokens=count, ignore_eos=True) for count in (150, 2)]
        long, short = llm.generate(PROMPTS[:2], params)
    assert long.metrics is not None
    assert short.metrics is not None
    assert short.metrics.time_total < long.metrics.time_total / 2
    assert 0 < short.metrics.time_to_first_token <= short.metrics.time_total
