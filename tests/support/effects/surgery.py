"""Effects of surgery: what is cut is gone, and comes back bit for bit."""

from __future__ import annotations

import torch

from inference_pio.layers import Linear
from inference_pio.models.llama.plugin import LlamaPlugin
from inference_pio.optimizations.hardware.surgery import Surgery
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.plugin.serving import serving_of
from support.effects import Tiny, effect_of
from support.effects.models import loaded, model_of

_TEXT = "the cat sat on the mat"


def _answer(plugin: LlamaPlugin) -> str:
    return plugin.generate_text(_TEXT, max_new_tokens=6, temperature=0.0)


def _surgery(name: str) -> Surgery:
    found = TECHNIQUES[name]
    assert isinstance(found, Surgery)
    return found


@effect_of("merged_projections")
def merged_projections(tiny: Tiny) -> None:
    answers, merges = [], []
    for options in ({}, {"disable": ("merged_projections",)}):
        with loaded(tiny("grouped"), fields={"torch_dtype": "auto"}, quantize="int8", **options) as plugin:
            linears = [module for module in model_of(plugin).modules() if isinstance(module, Linear)]
            merges.append(sorted({linear.merges for linear in linears}))
            answers.append(_answer(plugin))
    assert merges == [[1, 2, 3], [1]]
    assert answers[0] == answers[1]


@effect_of("bias_removal")
def bias_removal(tiny: Tiny) -> None:
    with loaded(tiny("biased"), disable=("bias_removal",)) as plugin:
        model, technique = model_of(plugin), _surgery("bias_removal")
        linears = [module for module in model.modules() if isinstance(module, Linear)]
        biased = [linear for linear in linears if linear.bias is not None]
        whole, kept = [linear.bias for linear in biased], biased[0]
        for linear in biased[1:]:
            linear.bias.zero_()
        technique.apply(model, plugin.config)
        assert [linear for linear in linears if linear.bias is not None] == [kept]
        report = technique.get_report(model)
        assert (report["removed"]["biases"], report["kept"]) == (len(biased) - 1, 1)
        technique.undo(model)
        assert all(linear.bias is bias for linear, bias in zip(biased, whole, strict=True))


@effect_of("folded_norms")
def folded_norms(tiny: Tiny) -> None:
    with loaded(tiny("grouped")) as plugin:
        whole = _answer(plugin)
    with loaded(tiny("grouped"), enable=("folded_norms",)) as plugin:
        model = model_of(plugin)
        norms = [layer.input_layernorm.weight for layer in model.model.layers]
        assert all(torch.equal(weight, torch.ones_like(weight)) for weight in norms)
        assert _answer(plugin) == whole
        assert _surgery("folded_norms").get_report(model)["removed"] == {"norms": 4, "values": 256}
        _surgery("folded_norms").undo(model)
        assert not torch.equal(model.model.layers[0].input_layernorm.weight, torch.ones(64))


@effect_of("shorter_vocabulary")
def shorter_vocabulary(tiny: Tiny) -> None:
    with loaded(tiny("wide-vocabulary"), enable=("shorter_vocabulary",), keep_vocabulary=300) as plugin:
        model = model_of(plugin)
        assert model.lm_head.packed.out_features == 288 + 1024
        assert _answer(plugin)
        _surgery("shorter_vocabulary").undo(model)
        assert model.lm_head.packed.out_features == 4096


@effect_of("skipped_layers")
def skipped_layers(tiny: Tiny) -> None:
    with loaded(tiny("multi-query")) as plugin:
        model, technique = model_of(plugin), _surgery("skipped_layers")
        whole, specs = list(model.model.layers), serving_of(model).cache_specs
        serving_of(model).exempt["skipped_layers"] = frozenset({0, 2})
        technique.apply(model, plugin.config)
        assert list(model.model.layers) == [whole[0], whole[2]]
        assert serving_of(model).cache_specs == (specs[0], specs[2])
        assert technique.get_report(model)["removed"]["layers"] == [1]
        technique.undo(model)
        assert list(model.model.layers) == whole
        assert serving_of(model).cache_specs == specs
