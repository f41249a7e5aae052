"""What the engine itself costs per step, with a model that costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from inference_pio.cache.specs import PagedKV
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.sampling_params import SamplingParams

NUM_SEQS, STEPS = 32, 200


class NoModel(nn.Module):
    logits = torch.randn(NUM_SEQS, 100)

    def forward(self, batch, caches):  # noqa: ARG002
        return self.logits[: len(batch.last_token)]


class Repeating(nn.Module):
    logits = torch.randn(64, 100)
    logits[:, :20] += 20  # few tokens, so that the text's end nearly always stands somewhere before

    def forward(self, batch, caches):  # noqa: ARG002
        return self.logits[torch.randint(64, (len(batch.last_token),))]


def yardstick() -> float:
    """Seconds for some Python and some operations on small tensors, which is what a step consists of: how fast this
    machine is at the moment.
    """
    start = time.perf_counter()
    words = {str(number): number for number in range(100)}
    rows = NoModel.logits[:1]
    for _ in range(10):
        rows = rows + len(words)
    return time.perf_counter() - start


def timed(step: Callable[[], object], steps: int) -> tuple[float, float]:
    """The median of a step's seconds; and the fastest tenth by that of the yardstick, in turns: what other programs do
    to a busy machine, and how fast it is, counts for nothing.
    """
    times, yards = [], []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
        yards.append(yardstick())
    times.sort()
    yards.sort()
    return times[steps // 2], times[steps // 10] / yards[steps // 10]


def test_a_step_of_one_sequence_costs_little_with_speculation(capsys):
    medians = []
    for speculation in (0, 15):
        core = EngineCore(
            Repeating(),
            [PagedKV(1, 8, torch.float32)],
            EngineConfig(max_model_len=8192, num_blocks=256, speculation=speculation),
            vocab_size=100,
            eos_token_ids=[],
            prefix_policy=PrefixPolicy(seed=()),
            device=torch.device("cpu"),
        )
        prompt = torch.randint(20, (4000,)).tolist()
        core.add_request("r", prompt, SamplingParams(temperature=0, max_tokens=4000))
        while not core.step():
            pass
        core.step()  # looks through the prompt
        median, yards = timed(core.step, 5 * STEPS)
        medians.append(median * 1e6)
    with capsys.disabled():
        print(
            "\nengine overhead, one sequence: {:.0f} µs per step, {:.0f} µs with speculation".format(*medians)
        )
    assert yards < 3.3


def test_a_decoding_step_of_32_sequences_costs_little(capsys):
    config = EngineConfig(max_model_len=2048, num_blocks=2048)
    core = EngineCore(
        NoModel(),
        [PagedKV(1, 8, torch.float32)],
        config,
        vocab_size=100,
        eos_token_ids=[],
        prefix_policy=PrefixPolicy(seed=()),
        device=torch.device("cpu"),
    )
    for i in range(NUM_SEQS):
        core.add_request(str(i), [i + 1] * 512, SamplingParams(temperature=0, max_tokens=1000))
    while len(core.step()) < NUM_SEQS:
        pass
    counts = []
    median, yards = timed(lambda: counts.append(len(core.step())), STEPS)
    assert counts == [NUM_SEQS] * STEPS
    with capsys.disabled():
        print(
            f"\nengine overhead: {1e3 * median:.2f} ms per step of {NUM_SEQS} decoding sequences (median of {STEPS})"
        )
    assert yards < 12
