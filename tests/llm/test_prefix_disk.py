"""Prefixes on the disk through the whole product: found after a restart, and never those of other settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ConfigError, UsageError
from inference_pio.loader.store import ModelStore

PROMPT = {"prompt_token_ids": [5 + i * i % 90 for i in range(100)]}
PARAMS = SamplingParams(temperature=0.8, seed=3, max_tokens=5, ignore_eos=True)
OPTIONS: dict[str, Any] = {
    "dtype": "float32", "skip_tokenizer_init": True, "kv_cache_memory_gb": 0.02, "block_size": 16, "speculation": 0
}  # fmt: skip
_ELSEWHERE = """
import json, sys
from inference_pio import LLM, SamplingParams
with LLM(sys.argv[1], prefix_cache_disk_gb=0.01, **json.loads(sys.argv[2])) as llm:
    output = llm.generate(json.loads(sys.argv[3]), SamplingParams(**json.loads(sys.argv[4])))[0]
    print(json.dumps([output.metrics.num_cached_tokens, output.outputs[0].token_ids]))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def ask(checkpoint: Path, disk_gb: float = 0.01, **changed: Any) -> tuple[int, list[int]]:
    """(prompt tokens that were found, the answer), of a model that is loaded for this alone."""
    with LLM(str(checkpoint), prefix_cache_disk_gb=disk_gb, **{**OPTIONS, **changed}) as llm:
        output = llm.generate(PROMPT, PARAMS)[0]
        assert output.metrics is not None
        return output.metrics.num_cached_tokens, output.outputs[0].token_ids


def test_another_process_finds_what_this_one_computed(checkpoint: Path, home: Path) -> None:
    found, answer = ask(checkpoint)
    assert found == 0
    sampling = {"temperature": 0.8, "seed": 3, "max_tokens": 5, "ignore_eos": True}
    arguments = [json.dumps(each) for each in (OPTIONS, PROMPT, sampling)]
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(checkpoint), *arguments],
        capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "PYTHONHASHSEED": "5"},
    )  # fmt: skip
    assert json.loads(done.stdout) == [96, answer]
    assert ask(checkpoint, max_num_batched_tokens=64, max_num_seqs=2) == (96, answer)
    assert sum(path.stat().st_size for path in (home / "prefixes").rglob("*.block")) <= 1e7


def test_other_settings_and_checkpoints_find_nothing(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    ask(checkpoint)
    assert ask(checkpoint, kv_cache_dtype="bfloat16")[0] == 0
    assert ask(checkpoint, block_size=32)[0] == 0
    model = bytearray((checkpoint / "model.safetensors").read_bytes())
    same_path = tmp_path / "moved"
    same_path.mkdir()
    for file in checkpoint.iterdir():
        (same_path / file.name).write_bytes(file.read_bytes())
    assert ask(same_path)[0] == 0
    assert ask(same_path)[0] == 96
    model[-1] ^= 1
    (same_path / "model.safetensors").write_bytes(model)
    assert ask(same_path)[0] == 0
    assert len(list((home / "prefixes").iterdir())) == 2


def test_nothing_is_written_unless_it_was_asked_for(checkpoint: Path, home: Path) -> None:
    ask(checkpoint, disk_gb=0)
    assert not (home / "prefixes").exists()


def test_damage_is_counted_and_changes_no_answer(checkpoint: Path, home: Path) -> None:
    _, answer = ask(checkpoint)
    for path in (home / "prefixes").rglob("*.block"):
        record = bytearray(path.read_bytes())
        record[len(record) // 2] ^= 4
        path.write_bytes(record)
    with LLM(str(checkpoint), prefix_cache_disk_gb=0.01, **OPTIONS) as llm:
        output = llm.generate(PROMPT, PARAMS)[0]
        figures = llm.plugin.get_disk_stats()
    assert output.outputs[0].token_ids == answer
    assert output.metrics is not None
    assert (output.metrics.num_cached_tokens, figures["prefix_blocks_broken"]) == (0, 1)


def test_prefixes_go_with_their_model(home: Path) -> None:
    store = ModelStore(home)
    model, other = store.folder("tiny"), home / "models" / "other"
    model.mkdir(parents=True)
    (model / "tiny.gguf").write_bytes(b"x" * 10)
    for path in (model / "tiny.gguf", other):
        folder = store.prefixes_of(path) / "key"
        folder.mkdir(parents=True)
        (folder / "aa.block").write_bytes(b"x" * 100)
    assert store.disk_usage_bytes() == 210
    assert store.remove("tiny") == 110
    assert store.disk_usage_bytes() == 100
    assert store.prefixes_of(other).is_dir()


def test_what_cannot_be_kept_is_refused(checkpoint: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prefix_cache_disk_gb 0.01: .* use_prefix_caching is off"):
        ask(checkpoint, enable_prefix_caching=False)
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="prefix_cache_disk_gb must be at least 0 and finite"):
            ask(checkpoint, disk_gb=wrong)
    pytest.importorskip("inference_pio.models.qwen3_next")
    subject = Subject.of("qwen3_next", tmp_path, collected={})
    with pytest.raises(ConfigError, match="layers keep state, of which no copies are kept on the disk"):
        ask(subject.checkpoint(subject.case.typical))
    assert not (home / "prefixes").exists()
