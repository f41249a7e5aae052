"""A plugin's tiny model in blocks beside the same one in floats: what its tests in `test_packed.py` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.conformance.case import ReferenceModel
from inference_pio.conformance.numbers import token_ids
from inference_pio.llm import LLM
from inference_pio.ops.rounding import quantize_rows
from inference_pio.plugin.quantization import Quantization
from inference_pio.sampling_params import SamplingParams

_PROMPT = 40
_LENGTHS = (1, 3, 20, 7, 33)
_BOUNDS: tuple[tuple[Literal["reference", "native"], float], ...] = (("reference", 1e-3), ("native", 0.15))


class HasModel(ReferenceModel, Protocol):
    """A reference whose parameters may be changed before it is saved."""

    model: nn.Module


class InBlocks:
    """The checkpoint of a reference model in floats, which is put into blocks each time that it is loaded."""

    checks: ClassVar[tuple[str, ...]] = ("check_answers", "check_recording", "check_plan")
    options: ClassVar[dict[str, Any]] = {"skip_tokenizer_init": True, "kv_cache_memory_gb": 0.01}

    def __init__(self, reference: HasModel, directory: Path, quantize: str, dense: tuple[str, ...]) -> None:
        """`dense` are words in the names of matrices that the plugin keeps in floats.

        The others are first rounded to what blocks hold, so that their rounding, which says much of a tiny random model
        and nothing of the plugin, does not count.
        """
        self.reference, self._quantize = reference, quantize
        how = Quantization.parse(quantize)
        with torch.no_grad():
            for name, parameter in reference.model.named_parameters():
                if parameter.ndim > 1 and not any(word in name for word in dense):
                    parameter.copy_(_rounded(parameter, how))
        self.path = reference.save(directory, "safetensors")

    def check_answers(self) -> None:
        """Log-probabilities are those of floats: exactly in torch, and in C++, where activations have 8 bits, nearly.

        There a token takes another expert here and there, and tiny random models magnify what is rounded; a layer that
        computes something else would move every position by more.
        """
        for implementation, bound in _BOUNDS:
            with ops.use(implementation):
                median = torch.tensor(self._distances()).median().item()
            where = f"{self._quantize}, {implementation}"
            assert median < bound, f"{where}: the median distance is {median:.5f}, expected under {bound}"

    def _distances(self) -> list[float]:
        prompt = token_ids(_PROMPT, 272)
        params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=20)
        options = {"kv_cache_dtype": "float32", **self.options}
        with LLM(str(self.path), quantize=self._quantize, **options) as llm:
            found = llm.generate([{"prompt_token_ids": prompt[: end + 1]} for end in range(_PROMPT)], params)
        return [
            abs(entry.logprob - row[token_id].item())
            for row, result in zip(self.reference.logits(prompt).log_softmax(-1), found, strict=True)
            for token_id, entry in (result.outputs[0].logprobs or [{}])[0].items()
        ]

    def check_recording(self) -> None:
        """Decode steps are recorded and replayed, and say what the same operations say one by one.

        Five prompts, two at a time: sequences come and go while steps are replayed.
        """
        recorded, shapes, refused = self._decode(recorded=True)
        assert refused is None, f"decoding is not recorded: {refused}"
        assert {(1, 1), (2, 2)} <= shapes, f"recorded are steps of {sorted(shapes)} tokens and sequences"
        plain, shapes, _ = self._decode(recorded=False)
        assert not shapes
        assert recorded == plain

    def check_plan(self) -> None:
        """Weights take less than half of the file's floats, and what was planned."""
        with LLM(str(self.path), quantize=self._quantize, **self.options) as llm:
            held = llm.plugin.get_memory_stats()["weights_bytes"]
            runtime: Any = llm.plugin.runtime
            planned = runtime.plan.weights
            stored = llm.plugin.get_disk_stats()["model_bytes"]
        assert held == planned, f"{held} bytes, planned were {planned}"
        assert held < stored / 2, f"{held} bytes of {stored}"

    def _decode(self, *, recorded: bool) -> tuple[list[list[int]], set[Any], str | None]:
        """Answers; shapes of recorded steps; why steps were not recorded."""
        prompts = [{"prompt_token_ids": token_ids(length, 272, length)} for length in _LENGTHS]
        params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
        options = {"speculation": 0, "max_num_seqs": 2, **self.options}
        with LLM(str(self.path), quantize=self._quantize, **options) as llm:
            runtime: Any = llm.plugin.runtime
            runner = runtime._loop._core._runner
            if not recorded:
                runner._step = runner._forward
            answers = [result.outputs[0].token_ids for result in llm.generate(prompts, params)]
            return answers, set(runner._replay._steps), runner._replay.refused


def _rounded(weight: Tensor, how: Quantization) -> Tensor:
    rows = weight.detach().flatten(0, -2)
    blocks = ops.Blocks(how.kind, quantize_rows(rows, how.kind, how.group_size), rows.shape[1])
    return ops.pack_quantized([blocks]).dequantize().view_as(weight)
