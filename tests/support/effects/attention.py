"""Effects of techniques that read less of a context."""

from __future__ import annotations

from dataclasses import replace

import torch

from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.plugin.serving import serving_of
from inference_pio.sampling_params import SamplingParams
from support.effects import Tiny, effect_of
from support.effects.models import loaded, model_of

_PROMPT = torch.randint(3, 250, (200,), generator=torch.Generator().manual_seed(0)).tolist()
_BUDGET = 96


def _read(tiny: Tiny, name: str) -> None:
    """Of 200 tokens 96 are read: what a long prompt gives changes, what a short one gives does not."""
    answers: list[list[object]] = []
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, logprobs=0)
    for options in ({"enable": (name,), "attention_budget": _BUDGET}, {}):
        with loaded(tiny("grouped"), **options) as plugin:
            made = plugin.runtime.generate([_PROMPT, _PROMPT[:80]], [params, params])
            answers.append([(one.outputs[0].token_ids, one.outputs[0].logprobs) for one in made])
            model = plugin.load_model()
            report = TECHNIQUES[name].get_report(model)
            assert report["layers"] == (2 if options else 0)
            assert report["bounds_bytes_per_token"] == (32 if options and name != "sink_window" else 0)
            assert report["keys_read_of_8192"] == (_BUDGET if options else 8192)
            kept = sum(spec.bytes_per_token() for spec in serving_of(model).cache_specs)
            assert kept == 512 + report["bounds_bytes_per_token"]
    assert answers[0][0] != answers[1][0]
    assert answers[0][1] == answers[1][1]


@effect_of("sparse_decode")
def sparse_decode(tiny: Tiny) -> None:
    _read(tiny, "sparse_decode")


@effect_of("sparse_prefill")
def sparse_prefill(tiny: Tiny) -> None:
    _read(tiny, "sparse_prefill")


@effect_of("sink_window")
def sink_window(tiny: Tiny) -> None:
    _read(tiny, "sink_window")


@effect_of("window")
def window(tiny: Tiny) -> None:
    """A tiny llama with windows put into it: models of this kind have none."""
    with loaded(tiny("grouped")) as plugin:
        model = model_of(plugin)
        for module, how in attending(model):
            set_attention(module, replace(how, window=64, reads_all=True))
        TECHNIQUES["window"].apply(model, plugin.config)
        assert [how.reads_all for _, how in attending(model)] == [False, False]
        assert TECHNIQUES["window"].get_report(model)["layers"] == 2
