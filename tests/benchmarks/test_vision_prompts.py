"""Random prompts of a benchmark ask for no image, also where the vocabulary has a token that would."""

from __future__ import annotations

from pathlib import Path

from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.workload import Workload
from support.vision_model import write_vision_model


def test_a_model_that_sees_can_be_measured(tmp_path: Path) -> None:
    path = write_vision_model(tmp_path).path
    workload = Workload(prompt_len=500, output_len=2)
    with LoadedModel("qwen3_vl", str(path), [workload], dtype="float32") as loaded:
        processor = loaded.plugin.media_processor(loaded.plugin.config)
        assert processor is not None
        numbers = range(4)
        assert any(processor.placeholder in workload.waves(loaded.vocab_size, n)[0][0] for n in numbers)
        for number in numbers:
            (output,) = loaded.run(workload, number)
            assert len(output.prompt_token_ids) == 500
        assert len(loaded.token_times(workload, 0)) == 2
