"""When the bridge runs a model, how it is asked for, and what the user reads about it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_pio import LLM, SamplingParams, create_plugin
from inference_pio.bridge import MANIFEST, offer
from inference_pio.cli.app import execute
from inference_pio.conformance.subject import Subject
from inference_pio.errors import PluginError, UnsupportedArchitecture
from inference_pio.plugin.registry import Registry, default_registry
from support.bridged import TINY

_OLMO = TINY["olmo2"]
# What a Python without Transformers does with the statement in its last line.
_WITHOUT = """
import sys
sys.modules["transformers"] = None
from inference_pio.errors import InferencePIOError
from inference_pio.plugin.registry import create_plugin, default_registry
try:
    {statement}
except InferencePIOError as error:
    print(error.exit_code, error)
"""
_CHEAP = {"dtype": "float32", "skip_tokenizer_init": True, "kv_cache_memory_gb": 0.02}


def test_a_plugin_of_its_own_always_wins() -> None:
    registry = default_registry()
    assert registry.for_checkpoint({"architectures": ["LlamaForCausalLM"]}, "x").name == "llama"
    assert registry.for_checkpoint(_OLMO, "x") is MANIFEST
    assert registry.for_checkpoint({"model_type": "olmo2"}, "x") is MANIFEST
    assert registry.for_checkpoint({"architectures": ["Olmo2ForCausalLM"]}, "x") is MANIFEST
    assert "transformers" not in registry.names()
    assert MANIFEST.name not in {found.manifest.name for found in registry.all()}


def test_what_the_bridge_cannot_try_is_told_with_the_supported_ones() -> None:
    registry = default_registry()
    for raw, why in (
        ({"architectures": ["NinthForCausalLM"], "model_type": "ninth"}, "for model_type 'ninth'"),
        (
            {"architectures": ["Olmo2ForSequenceClassification"], "model_type": "olmo2"},
            "runs Olmo2ForCausalLM",
        ),
        ({}, "for no name"),
        ({"general.architecture": "olmo2"}, "others come as plugin packages"),
    ):
        with pytest.raises(UnsupportedArchitecture, match=why) as refusal:
            registry.for_checkpoint(raw, "here")
        assert "supported: " in str(refusal.value)
    with pytest.raises(UnsupportedArchitecture, match="come as plugin packages"):
        Registry().for_checkpoint(_OLMO, "here")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            'default_registry().for_checkpoint({"architectures": ["Olmo2ForCausalLM"]}, "here")',
            "3 here: no plugin for architecture Olmo2ForCausalLM (supported: ",
        ),
        ('create_plugin("transformers").read_config({}, "here")', "6 the bridge needs Transformers"),
    ],
    ids=["found by its architecture", "asked for"],
)
def test_without_the_extra_the_way_out_is_told(statement: str, says: str) -> None:
    program = _WITHOUT.format(statement=statement)
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith(says)
    assert "pip install 'inference-pio[transformers]'" in printed
    assert printed.count("\n") == 1


def test_an_old_release_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer, "version", lambda _: "4.57.1")
    with pytest.raises(UnsupportedArchitecture, match=r"needs release 5 or later, 4\.57\.1 is installed"):
        default_registry().for_checkpoint(_OLMO, "here")


def test_it_can_be_asked_for_where_a_plugin_exists(tmp_path: Path) -> None:
    """The same llama through both: the same tokens."""
    path = Subject.of("llama", tmp_path, collected={}).checkpoint("grouped")
    greedy = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    answers = []
    for name in ("llama", "transformers"):
        with LLM(str(path), plugin=name, **_CHEAP) as llm:  # type: ignore[arg-type]
            assert llm.plugin.manifest.name == name
            answers.append(llm.generate({"prompt_token_ids": [5, 6, 7]}, greedy)[0].outputs[0].token_ids)
    assert answers[0] == answers[1]


def test_another_plugin_than_the_bridge_still_has_to_claim_it(checkpoint: Callable[[str], Path]) -> None:
    path = str(checkpoint("olmo2"))
    with pytest.raises(UnsupportedArchitecture, match="not a checkpoint that plugin 'llama' runs"):
        LLM(path, plugin="llama")
    with pytest.raises(PluginError, match="did you mean 'transformers'"):
        LLM(path, plugin="transformer")


def test_the_standard_way_runs_it_too(checkpoint: Callable[[str], Path]) -> None:
    plugin = create_plugin("transformers")
    config = plugin.config_class(
        model_path=str(checkpoint("olmo2")), torch_dtype="float32", do_sample=False, use_prefix_caching=False
    )
    assert plugin.initialize(config=config, kv_cache_memory_gb=0.02)
    assert plugin.config.architecture == "Olmo2ForCausalLM"  # type: ignore[attr-defined]
    assert plugin.generate_text("once", max_new_tokens=4)
    assert {fact["status"] for fact in plugin.get_optimization_report()} == {
        "active",
        "dormant",
        "not applicable",
    }
    assert plugin.cleanup()


def test_it_is_no_architecture_to_copy_or_to_verify(tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match="'transformers' is no architecture: there is nothing of one to copy"
    ):
        execute(["new-model", "ninth", "--from", "transformers", "--into", str(tmp_path)])
    assert not list(tmp_path.iterdir())
    with pytest.raises(PluginError, match="'transformers' brings no case for the contract"):
        execute(["verify", "transformers"])


def _pio(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert execute(arguments) == 0
    return capsys.readouterr().out


def test_the_command_line_says_what_it_is(
    checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(checkpoint("olmo2"))
    assert f"runs through  {MANIFEST.fallback}" in _pio(capsys, "plan", path)
    planned = json.loads(_pio(capsys, "plan", path, "--dtype", "float32", "--json"))
    assert planned["plugin"] == "transformers"
    assert planned["fallback"] == MANIFEST.fallback
    assert (
        planned["kv_bytes_per_token"] == 3 * 2 * 2 * 16 * 4
    )  # layers, keys and values, KV heads, head, float32
    listed = _pio(capsys, "plugins")
    assert listed.splitlines()[-1].startswith("other architectures: transformers, release ")
    assert MANIFEST.fallback in _pio(capsys, "plugins", "transformers")
    answered = json.loads(
        _pio(
            capsys, "run", path, "once", "--plugin", "transformers", "--max-tokens", "3", "--json", "-t", "0"
        )
    )
    assert answered["usage"]["completion_tokens"] == 3


def test_the_plan_counts_the_bytes_that_are_loaded(checkpoint: Callable[[str], Path]) -> None:
    for model_type in ("olmo2", "opt", "mixtral", "deepseek_v3"):
        path = checkpoint(model_type)
        with LLM(str(path), **_CHEAP) as llm:  # type: ignore[arg-type]
            held = {tensor.data_ptr(): tensor.nbytes for tensor in llm.plugin.load_model().parameters()}
            largest = max(held.values())
            stated = llm._runtime.plan.weights
        assert sum(held.values()) <= stated <= sum(held.values()) + largest, model_type
