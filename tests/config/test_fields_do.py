"""Every option of the configuration: changing it changes what it promises."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch

from inference_pio import BaseModelConfig, ResourceLimits, create_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ConfigError, InferencePIOError, ModelNotFound, UsageError
from inference_pio.layers import Linear, ResidualNorm
from inference_pio.models.llama.attention.multi_query_attention import Attention
from inference_pio.models.llama.plugin import LlamaPlugin
from inference_pio.ops import GROUPS
from inference_pio.optimizations.choice import apply_all, choose
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.optimizations.technique import Situation
from inference_pio.parallel import RankedModel
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.sampling import sampling_params_of
from inference_pio.plugin.serving import Serving, give_serving, serving_of

Checkpoint = Callable[[str], str]
CHECKS: dict[str, Callable[[Checkpoint], None]] = {}


def of(*names: str) -> Callable[[Callable[[Checkpoint], None]], Callable[[Checkpoint], None]]:
    def register(check: Callable[[Checkpoint], None]) -> Callable[[Checkpoint], None]:
        CHECKS.update(dict.fromkeys(names, check))
        return check

    return register


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    subject = Subject.of("llama", tmp_path_factory.mktemp("fields"), collected={})
    return lambda tiny: str(subject.checkpoint(tiny))


def plugin(path: str, **options: Any) -> LlamaPlugin:
    base = {"model_path": path, "torch_dtype": "float32"}
    made = create_plugin("llama", config=LlamaPlugin.config_class(**{**base, **options}))
    assert isinstance(made, LlamaPlugin)
    return made


def loaded(path: str, **options: Any) -> LlamaPlugin:
    made = plugin(path, **options)
    assert made.initialize(config=made.config, kv_cache_memory_gb=0.02, block_size=16)
    made.load_model()
    return made


def modules(made: LlamaPlugin, kind: type) -> list[Any]:
    found = [module for module in made.load_model().modules() if isinstance(module, kind)]
    assert found
    return found


def refusal(made: LlamaPlugin, **options: Any) -> InferencePIOError:
    assert not made.initialize(config=made.config, **options)
    assert made.last_error is not None
    return made.last_error


@of("model_path")
def _path(_: Checkpoint) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        plugin("./nowhere").initialize()


@of("model_name")
def _name(checkpoint: Checkpoint) -> None:
    named = plugin(checkpoint("grouped"), model_name="my own name")
    assert str(refusal(named, resource_limits=ResourceLimits(memory_gb=0.001))).startswith("my own name ")


@of("device")
def _device(checkpoint: Checkpoint) -> None:
    assert "cuda:63 is not here" in str(refusal(plugin(checkpoint("grouped"), device="cuda:63")))


@of("device_map")
def _device_map(checkpoint: Checkpoint) -> None:
    path, answers = checkpoint("multi-query"), set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_PIO_HOME", path + "/home")
        for where in ("auto", "cpu", "disk"):
            made = loaded(path, device_map=where)
            assert (made.runtime.plan.paged > 0) == (where == "disk")
            answers.add(made.generate_text("the cat", max_new_tokens=4, do_sample=False))
            assert (made.get_disk_stats()["paged_read_bytes"] > 0) == (where == "disk")
            made.cleanup()
    assert len(answers) == 1
    with pytest.raises(UsageError, match="^device_map must be one of auto, cpu, disk, got 'balanced'$"):
        plugin(path, device_map="balanced").initialize()


@of("low_cpu_mem_usage")
def _loading(checkpoint: Checkpoint) -> None:
    """How many tensors have been read when the first of them is in its place."""
    ahead, planned = [], []
    for low in (True, False):
        made, reads, first = plugin(checkpoint("grouped"), low_cpu_mem_usage=low), [], []

        def note(*_: Any, reads: list[str] = reads, first: list[int] = first) -> None:
            for _ in range(200):
                if first or len(reads) > 3:
                    break
                time.sleep(0.005)
            first.append(len(reads))

        assert made.initialize(config=made.config, kv_cache_memory_gb=0.02, block_size=16, progress=note)
        source = made.runtime._opened.checkpoint
        read = source.read
        source.read = lambda name, *args, reads=reads, read=read: (reads.append(name), read(name, *args))[1]
        made.load_model()
        ahead.append(first[0])
        planned.append(made.runtime.plan.loading)
        made.cleanup()
    assert ahead[0] == 1
    assert ahead[1] > 3
    assert planned[0] < planned[1]


@of("torch_dtype")
def _dtype(checkpoint: Checkpoint) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        made = loaded(checkpoint("grouped"), torch_dtype=dtype)
        assert {norm.weight.dtype for norm in modules(made, ResidualNorm)} == {dtype}
        made.cleanup()


@of("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "do_sample")
def _generation(checkpoint: Checkpoint) -> None:
    changed = {"temperature": 0.3, "top_p": 0.4, "top_k": 7, "repetition_penalty": 1.3}
    params = sampling_params_of(LlamaPlugin.config_class(**changed), 5, {})
    assert {name: getattr(params, name) for name in changed} == changed
    assert sampling_params_of(LlamaPlugin.config_class(do_sample=False), 5, {}).greedy
    made = loaded(checkpoint("grouped"), max_new_tokens=3, do_sample=False)
    assert made.infer("the cat") == made.generate_text("the cat", max_new_tokens=3)
    made.cleanup()


@of("pad_token_id")
def _padding(checkpoint: Checkpoint) -> None:
    made = loaded(checkpoint("grouped"), pad_token_id=5)
    short, long = made.tokenize(["a", "a much longer text"], padding=True)
    assert len(short) == len(long)
    assert short == made.tokenize("a") + [5] * (len(long) - len(made.tokenize("a")))
    assert made.tokenize(["a"]) == [made.tokenize("a")]
    made.config.pad_token_id = None
    with pytest.raises(UsageError, match="set pad_token_id"):
        made.tokenize(["a"], padding=True)
    made.cleanup()


@of("use_flash_attention_2", "use_paged_attention")
def _attention(checkpoint: Checkpoint) -> None:
    made = loaded(checkpoint("grouped"), use_flash_attention_2=False, use_paged_attention=True)
    attention = modules(made, Attention)[0]
    assert attention.attend.prefill.__module__ != attention.attend.decode.__module__
    made.cleanup()
    made = loaded(checkpoint("grouped"), use_flash_attention_2=True, use_paged_attention=False)
    other = modules(made, Attention)[0]
    assert (other.attend.prefill, other.attend.decode) == (attention.attend.decode, attention.attend.prefill)
    made.cleanup()


@of("use_fused_layer_norm")
def _norm(checkpoint: Checkpoint) -> None:
    ways = []
    for flag in (True, False):
        made = loaded(checkpoint("grouped"), use_fused_layer_norm=flag)
        ways.append(modules(made, ResidualNorm)[0]._add.__func__)
        made.cleanup()
    assert ways == [ResidualNorm._fused, ResidualNorm._separate]


@of("use_bias_removal_optimization")
def _biases(checkpoint: Checkpoint) -> None:
    counts = []
    for flag in (True, False):
        made = plugin(checkpoint("biased"), use_bias_removal_optimization=flag)
        model = made.load_model()
        for linear in modules(made, Linear):
            if linear.bias is not None:
                linear.bias.zero_()
        apply_all(made.runtime.techniques, model, made.config, "weights")
        counts.append(sum(linear.bias is not None for linear in modules(made, Linear)))
        made.cleanup()
    assert counts[0] == 0 < counts[1]


@of("use_kv_cache_compression", "kv_cache_compression_method", "kv_cache_quantization_bits")
def _kv_compression(checkpoint: Checkpoint) -> None:
    made = plugin(checkpoint("grouped"))
    assert made.initialize(config=made.config, enable=("kv_int8",))
    specs = serving_of(made.load_model()).cache_specs
    assert {spec.dtype for spec in specs} == {torch.int8}
    made.cleanup()
    for options, words in (
        ({"use_kv_cache_compression": False}, "use_kv_cache_compression is off"),
        ({"kv_cache_compression_method": "eviction"}, "kv_cache_compression_method is eviction"),
        ({"kv_cache_compression_method": "zip"}, "quantization, eviction, combined, got 'zip'"),
        ({"kv_cache_quantization_bits": 16}, "kv_cache_quantization_bits is 16"),
    ):
        made = plugin(checkpoint("grouped"), **options)
        with pytest.raises(ConfigError, match=words):
            made.initialize(config=made.config, enable=("kv_int8",))
    made = plugin(checkpoint("grouped"), kv_cache_compression_method="quantization")
    with pytest.raises(ConfigError, match="kv_cache_compression_method is quantization"):
        made.initialize(config=made.config, kv_cache_budget=1024)


_BY_TECHNIQUE = {
    "use_cache": (False, "recomputation"),
    "use_grouped_query_attention": (True, "grouped_query_attention"),
    "use_cuda_kernels": (True, "device_kernels"),
}


def _active(checkpoint: Checkpoint, tiny: str = "grouped", **options: Any) -> set[str]:
    made = loaded(checkpoint(tiny), **options)
    lines = [line for family in made.get_optimization_report() for line in family.get("techniques", ())]
    made.cleanup()
    return {line["name"] for line in lines if line["status"] == "active"}


@of(*_BY_TECHNIQUE)
def _techniques(checkpoint: Checkpoint) -> None:
    """What each of them does, `tests/optimizations/test_effects.py` shows."""
    for field, (on, technique) in _BY_TECHNIQUE.items():
        assert technique in _active(checkpoint, **{field: on}), field
        assert technique not in _active(checkpoint, **{field: not on}), field


@of("gradient_checkpointing")
def _bounded(checkpoint: Checkpoint) -> None:
    asked = {"enable": ("bounded_mlp",)}
    made = plugin(checkpoint("grouped"))
    assert made.initialize(config=made.config, **asked)
    made.cleanup()
    made = plugin(checkpoint("grouped"), gradient_checkpointing=False)
    with pytest.raises(ConfigError, match="gradient_checkpointing is off"):
        made.initialize(config=made.config, **asked)


@of("use_tensor_parallelism")
def _ranks(checkpoint: Checkpoint) -> None:
    for flag in (True, False):
        made = plugin(checkpoint("grouped"), use_tensor_parallelism=flag)
        assert made.initialize(config=made.config, tensor_parallel_size=2, kv_cache_memory_gb=0.02)
        assert isinstance(made.load_model(), RankedModel) is flag
        made.cleanup()
    made = plugin(checkpoint("grouped"), use_tensor_parallelism=True)
    with pytest.raises(ConfigError, match="tensor_parallel_size 3: this model can be divided over 1, 2"):
        made.initialize(config=made.config, tensor_parallel_size=3)


@of("use_multi_query_attention")
def _one_head(checkpoint: Checkpoint) -> None:
    for flag in (True, False):
        found = _active(checkpoint, "multi-query", use_multi_query_attention=flag)
        assert ("multi_query_attention" in found) is flag


@of("enable_memory_efficient_attention")
def _scores(checkpoint: Checkpoint) -> None:
    for flag in (True, False):
        found = _active(checkpoint, use_flash_attention_2=False, enable_memory_efficient_attention=flag)
        assert ("bounded_scores" in found) is flag


@of(*(f"cuda_kernel_{group}_enabled" for group in GROUPS))
def _kernels(checkpoint: Checkpoint) -> None:
    for group in GROUPS:
        made = loaded(checkpoint("grouped"), **{f"cuda_kernel_{group}_enabled": False})
        assert serving_of(made.load_model()).native_groups == set(GROUPS) - {group}
        made.cleanup()


@of("torch_compile_mode", "torch_compile_fullgraph", "torch_compile_dynamic")
def _compiled(checkpoint: Checkpoint) -> None:
    asked: dict[str, Any] = {}

    class _Compiles(torch.nn.Module):
        def compile(self, **options: Any) -> None:
            asked.update(options)

    config = LlamaPlugin.config_class(
        torch_compile_mode="max-autotune", torch_compile_fullgraph=True, torch_compile_dynamic=False
    )
    TECHNIQUES["compiled_step"].apply(_Compiles(), config)
    assert asked == {"mode": "max-autotune", "fullgraph": True, "dynamic": False}
    with pytest.raises(ConfigError, match="torch_compile_mode must be one of default, reduce-overhead"):
        loaded(checkpoint("grouped"), torch_compile_mode="fastest")


@of("enable_cudnn_benchmark")
def _cudnn(checkpoint: Checkpoint) -> None:  # noqa: ARG001 - no tiny llama convolves
    model = torch.nn.Conv2d(1, 1, 1)
    give_serving(model, Serving(()))
    for flag in (True, False):
        config = LlamaPlugin.config_class(enable_cudnn_benchmark=flag)
        at = Situation(model, config, RuntimeOptions(), torch.device("cuda"), torch.float32, packed=False)
        technique = TECHNIQUES["cudnn_benchmark"]
        [chosen] = choose(at, (), techniques={technique.name: technique})
        assert chosen.active is flag


@of("use_sparse_attention", "use_sliding_window_attention")
def _reading_less(checkpoint: Checkpoint) -> None:
    for flag, technique in (
        ("use_sparse_attention", "sparse_decode"),
        ("use_sparse_attention", "sparse_prefill"),
        ("use_sliding_window_attention", "sink_window"),
    ):
        for allowed in (True, False):
            made = plugin(checkpoint("grouped"), **{flag: allowed})
            options = {"enable": (technique,), "attention_budget": 96}
            if not allowed:
                with pytest.raises(
                    ConfigError, match=f"enable {technique}: .* cannot be used here: {flag} is off"
                ):
                    made.initialize(config=made.config, **options)
                continue
            assert made.initialize(config=made.config, **options)
            assert all(layer.attend.selection for layer in modules(made, Attention))
            made.cleanup()


@of("use_prefix_caching", "prefix_cache_max_size")
def _prefixes(checkpoint: Checkpoint) -> None:
    hits = []
    for options in ({}, {"use_prefix_caching": False}, {"prefix_cache_max_size": 0}):
        made = loaded(checkpoint("grouped"), **options)
        for _ in range(2):
            made.generate_text("the cat sat on the mat and looked at the other cat " * 3, max_new_tokens=1)
        hits.append(made.get_compute_stats()["prefix_cache_hit_tokens"])
        made.cleanup()
    assert hits[0] > 0
    assert hits[1:] == [0, 0]


@pytest.mark.parametrize("check", dict.fromkeys(CHECKS.values()), ids=lambda check: check.__name__.strip("_"))
def test_changing_a_field_changes_what_it_promises(
    check: Callable[[Checkpoint], None], checkpoint: Checkpoint
) -> None:
    check(checkpoint)


def test_no_option_is_left_out() -> None:
    options = {field.name for field in fields(BaseModelConfig)} - BaseModelConfig.architecture_fields()
    assert set(CHECKS) == options


def test_the_architecture_is_the_checkpoints(checkpoint: Checkpoint) -> None:
    """The remaining fields are facts: what a checkpoint states is what is built."""
    made = plugin(checkpoint("grouped"))
    made.initialize()
    config = made.config
    model = made.load_model()
    embedding = dict(model.named_parameters())["model.embed_tokens.weight"]
    assert tuple(embedding.shape) == (config.vocab_size, config.hidden_size)
    assert len(modules(made, Attention)) == config.num_hidden_layers
    assert modules(made, Attention)[0].heads[0] == config.num_attention_heads
    widths = {linear.in_features for linear in modules(made, Linear)}
    assert config.intermediate_size in widths
    assert model.get_submodule("model.rotary_emb").cos_sin.shape[0] == config.max_position_embeddings
    made.cleanup()
