"""SmolLM2-135M-Instruct in the blocks of its file: what it says beside float32, and the memory that real files take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import packed_accuracy
from inference_pio.ops import native

pytestmark = [
    pytest.mark.slow,
    pytest.mark.weights,
    pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING)),
]
_LOAD = """
import json, sys
from pathlib import Path
from inference_pio import LLM, SamplingParams

with LLM(sys.argv[1], max_model_len=512, max_num_seqs=1, kv_cache_memory_gb=0.05) as llm:
    params = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
    llm.generate({"prompt_token_ids": list(range(100, 300))}, params)
    kv = llm.plugin.get_memory_stats()["kv_cache_reserved_bytes"]
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({"peak": int(status["VmHWM"].split()[0]) * 1024, "kv": kv}))
"""


def test_greedy_tokens_are_those_of_float32(smollm2_path: Path) -> None:
    """Given the same tokens before: on its own a model of this size leaves the path at the first near-tie."""
    assert packed_accuracy.agreement(smollm2_path)[packed_accuracy.GIVEN] >= packed_accuracy.LEAST


@pytest.mark.parametrize("kind", ["Q4_1", "Q4_K"])
def test_perplexity_is_that_of_the_same_blocks_in_float32(
    kind: str, smollm2_path: Path, tmp_path: Path
) -> None:
    """A few windows, which can show a ratio above the bound, not one below it: the whole text takes minutes."""
    path = packed_accuracy.encoded(kind, smollm2_path, tmp_path / "model.gguf")
    found = packed_accuracy.compare(path, packed_accuracy.TEXT.read_text(encoding="utf-8"), 2048, kind)
    assert found.packed != found.float32, "both ran in the same way"
    assert found.ratio.against(packed_accuracy.MOST) != "above"
    assert found.ratio.ratio <= 1.02


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("model", ["smollm2_path", "qwen2_coder_path"])
def test_a_loaded_model_takes_little_more_than_its_file(model: str, request: pytest.FixtureRequest) -> None:
    """At its peak, the interpreter and torch included: 1.25 times the file, keys and values, and 300 MB."""
    path: Path = request.getfixturevalue(model)
    command = [sys.executable, "-c", _LOAD, str(path)]
    found = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    )
    most = 1.25 * path.stat().st_size + found["kv"] + 300e6
    assert found["peak"] <= most, f"{found['peak'] / 1e6:.0f} MB, at most {most / 1e6:.0f} MB"
