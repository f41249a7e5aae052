"""A real model with most of its layers on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.weights]

_ASK = """
import json, sys
from inference_pio import LLM, SamplingParams

with LLM(sys.argv[1], kv_cache_memory_gb=0.05, max_model_len=512, max_num_seqs=4, **json.loads(sys.argv[2])) as llm:
    params = SamplingParams(temperature=0.0, max_tokens=8)
    text = llm.chat([{"role": "user", "content": "Which city is the capital of France? One word."}], params)
    stats = llm.plugin.get_memory_stats()
    print(json.dumps({"text": text[0].outputs[0].text, "plan": llm.plugin.runtime.plan.as_dict(), **stats}))
"""


def test_a_real_model_answers_within_600_mb(qwen2_coder_path: Path, tmp_path: Path) -> None:
    """Its process never has more in memory than 600 MB of weights, what is planned beside them, and what it reads."""
    options = json.dumps({"resident_weights_gb": 0.6})
    asked = [sys.executable, "-c", _ASK, str(qwen2_coder_path), options]
    env = {**os.environ, "INFERENCE_PIO_HOME": str(tmp_path)}
    done = subprocess.run(asked, env=env, check=True, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert "Paris" in found["text"]
    assert found["weights_bytes"] <= 600e6
    plan = found["plan"]
    assert plan["paged"] > 500e6
    loading = plan["weights"] - found["weights_bytes"]
    assert found["process_bytes"] <= 600e6 + plan["total"] - plan["weights"]
    assert found["process_peak_bytes"] <= 600e6 + loading + plan["total"] - plan["weights"]
