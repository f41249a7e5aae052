"""The layer that predicts further tokens, from a checkpoint to drafts that are taken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_pio.conformance.checkpoint import HeaderOnly
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts
from inference_pio.errors import CheckpointMismatch
from inference_pio.llm import LLM
from inference_pio.loader.weights import audit
from inference_pio.models.glm4_moe_lite.model import Glm4MoeLiteForCausalLM
from inference_pio.models.glm4_moe_lite.tests.case import GLM_4_7_FLASH, TINY, by_transformers
from inference_pio.models.glm4_moe_lite.tests.reference import TransformersGlmWithMtp
from inference_pio.parallel import Shard
from inference_pio.sampling_params import SamplingParams

_RAW = {**TINY["low-rank"], "num_nextn_predict_layers": 1}
_PROMPTS = [token_ids(length, 272, length) for length in (5, 17, 40)]
_OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "skip_tokenizer_init": True,
    "kv_cache_memory_gb": 0.01,
    "block_size": 16,
}
_GREEDY = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
_SAMPLED = SamplingParams(temperature=0.8, top_p=0.95, seed=3, max_tokens=60, ignore_eos=True)


@pytest.fixture
def drafts_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is drafted does not depend on this machine's speed."""
    monkeypatch.setattr(StepCosts, "comparable", True)
    monkeypatch.setattr(
        StepCosts, "ratios", lambda _, most: [(count, 1.0) for count in DRAFT_COUNTS if count <= most]
    )


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TransformersGlmWithMtp(_RAW).save(tmp_path_factory.mktemp("untrained"), "safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, its layer trained on the model's own answers to the prompts of these tests, three tokens deep."""
    reference = TransformersGlmWithMtp(_RAW)
    texts = [prompt + reference.generate(prompt, 60) for prompt in _PROMPTS]
    _train(reference, texts)
    return reference.save(tmp_path_factory.mktemp("trained"), "safetensors")


def _train(reference: TransformersGlmWithMtp, texts: list[list[int]]) -> None:
    with torch.no_grad():
        known = [reference.model.model(torch.tensor([text])).last_hidden_state[0] for text in texts]
    parameters = list(reference.layer_modules.parameters())
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(50):
        loss = torch.zeros(())
        for text, hidden in zip(texts, known, strict=True):
            made: Tensor = hidden
            for _ in range(3):
                made = reference.hidden(torch.cat((torch.zeros_like(made[:1]), made[:-1])), text)
                logits = reference.model.lm_head(made)[:-1]
                loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(text[1:]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@contextmanager
def _open(path: Path, **options: Any) -> Iterator[LLM]:
    with LLM(str(path), **{**_OPTIONS, **options}) as llm:
        yield llm


def _answers(llm: LLM, params: SamplingParams) -> list[list[int]]:
    results = llm.generate([{"prompt_token_ids": prompt} for prompt in _PROMPTS], params)
    return [result.outputs[0].token_ids for result in results]


@pytest.mark.parametrize("kind", ["trained", "untrained"])
@pytest.mark.usefixtures("drafts_are_free")
def test_tokens_stay_and_steps_get_fewer(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    with _open(path, mtp=False, speculation=0) as llm:
        expected = [_answers(llm, _GREEDY)]
        steps = llm.plugin.get_compute_stats()["steps"]
        expected.append(_answers(llm, _SAMPLED))
    with _open(path, speculation=3) as llm:
        found = [_answers(llm, _GREEDY)]
        stats = llm.plugin.get_compute_stats()
        found.append(_answers(llm, _SAMPLED))
        report = {entry["name"]: entry["status"] for entry in llm.plugin.get_optimization_report()}
        # The beginning of a prompt from the prefix cache, and then drafts.
        again = [_answers(llm, params) for params in (_GREEDY, _SAMPLED)]
        assert llm.plugin.get_compute_stats()["prefix_cache_hit_tokens"] > 0
    assert found == again == expected
    assert report["multi-token prediction"] == "active"
    share = stats["accepted_predicted_tokens"] / stats["predicted_draft_tokens"]
    if kind == "trained":
        assert share > 0.7
        assert stats["steps"] < 0.5 * steps
    else:
        assert stats["predicted_draft_tokens"] > 50
        assert share < 0.1


@pytest.mark.usefixtures("drafts_are_free")
def test_with_few_blocks_and_short_steps(trained: Path) -> None:
    """Prompts in chunks, sequences put out and begun again."""
    with _open(trained, mtp=False, speculation=0) as llm:
        expected = _answers(llm, _GREEDY)
    with _open(trained, max_num_batched_tokens=7, kv_cache_memory_gb=9.6e-5, max_model_len=112) as llm:
        assert _answers(llm, _GREEDY) == expected
        stats = llm.plugin.get_compute_stats()
    assert stats["preemptions"] > 0
    assert stats["accepted_predicted_tokens"] > 30


@pytest.mark.usefixtures("drafts_are_free")
def test_packed_weights(trained: Path) -> None:
    """In blocks of 8 bits the layer is rounded like the rest, and is right nearly as often.

    Answers are compared as far as no two tokens are nearly as likely: steps of several rows round in another way.
    """
    options = {"quantize": "int8", "dtype": "auto", "kv_cache_dtype": "float32"}
    with _open(trained, mtp=False, speculation=0, **options) as llm:
        expected = _answers(llm, _GREEDY)
    with _open(trained, **options) as llm:
        found = _answers(llm, _GREEDY)
        assert [answer[:30] for answer in found] == [answer[:30] for answer in expected]
        assert llm.plugin.load_model().model.prediction_layer().eh_proj.weight is None  # type: ignore[attr-defined,union-attr,operator]
        assert llm.plugin.get_compute_stats()["accepted_predicted_tokens"] > 30


def test_off_is_as_if_it_were_not_there(untrained: Path) -> None:
    found = []
    for options in ({"mtp": True}, {"mtp": False}, {"speculation": 0}):
        with _open(untrained, max_num_seqs=2, **options) as llm:
            plan, specs = llm.plugin.runtime.plan, llm.plugin.load_model().can_draft  # type: ignore[attr-defined]
            found.append((specs, plan.kv_bytes_per_token, llm.plugin.get_memory_stats()["weights_bytes"]))
    (drafts, cache, weights), *without = found
    assert drafts
    assert without[0] == without[1] == (False, cache * 3 // 4, without[0][2])
    # eh_proj, attention, eight experts and a shared one, router, norms
    layer = sum(
        shape.numel()
        for name, shape in ((name, torch.Size(shape)) for name, shape in by_transformers(_RAW).items())
        if name.startswith("model.layers.3.")
        and "embed_tokens" not in name
        and "shared_head.head" not in name
    )
    assert weights - without[0][2] == 4 * layer


def test_a_plugin_that_is_used_again_decides_anew(untrained: Path) -> None:
    """What was decided for one loading is no request for the next."""
    plugin = LLM(str(untrained), **_OPTIONS).plugin
    assert plugin.config.use_mtp  # type: ignore[attr-defined]
    plugin.cleanup()
    assert plugin.initialize(mtp=False, skip_tokenizer_init=True, kv_cache_memory_gb=0.01)
    assert not plugin.config.use_mtp  # type: ignore[attr-defined]
    plugin.cleanup()


def test_the_published_checkpoint_fills_the_layer(subject: Subject) -> None:
    """All of layer 47, and nothing that is not in it; a layer that is stated and not there is left alone.

    The files that are published have 9,703 tensors and 31,221,488,576 numbers.
    """
    plugin, shapes = subject.plugin(), dict(by_transformers(GLM_4_7_FLASH))
    assert (len(shapes), sum(math.prod(shape) for shape in shapes.values())) == (9_703, 31_221_488_576)
    config = plugin.with_drafting(plugin.read_config(GLM_4_7_FLASH, ""), shapes.keys())
    assert config is not None
    with torch.device("meta"):
        model = Glm4MoeLiteForCausalLM(config, Shard())  # type: ignore[arg-type]
    parameters = {name: tuple(value.shape) for name, value in model.named_parameters()}

    def check(found: dict[str, tuple[int, ...]]) -> None:
        audit(parameters, HeaderOnly.of("GLM-4.7-Flash", "safetensors", found), plugin.weight_map(config))

    check(shapes)
    place = "model.layers.47."
    for name in (
        "eh_proj.weight",
        "shared_head.norm.weight",
        "mlp.experts.63.up_proj.weight",
        "hnorm.weight",
    ):
        with pytest.raises(CheckpointMismatch, match=name.partition(".")[0]):
            check({tensor: shape for tensor, shape in shapes.items() if tensor != f"{place}{name}"})
    with pytest.raises(CheckpointMismatch, match="indexer"):
        check({**shapes, f"{place}self_attn.indexer.weight": (3,)})
    without = [name for name in shapes if not name.startswith(place)]
    assert plugin.with_drafting(plugin.read_config(GLM_4_7_FLASH, ""), without) is None
    stated = {key: value for key, value in GLM_4_7_FLASH.items() if key != "num_nextn_predict_layers"}
    assert plugin.with_drafting(plugin.read_config(stated, ""), shapes.keys()) is None


def test_two_ranks_draft_alike(untrained: Path, subject: Subject) -> None:
    """The layer is divided as the others are; what joins its inputs is whole on every rank."""
    from concurrent.futures import ThreadPoolExecutor

    from inference_pio.conformance.drafting import DraftingBareModel
    from inference_pio.conformance.numbers import assert_close
    from inference_pio.parallel import SimulatedGroup

    group = SimulatedGroup(2)

    def drafted(shard: Shard) -> Tensor:
        model = DraftingBareModel(subject.plugin(), untrained, shard=shard)
        model.take_in([(0, _PROMPTS[1])])
        return model.guess([(0, [3, 5, 7])])

    whole = drafted(Shard())
    with ThreadPoolExecutor(2) as pool:
        for rank in pool.map(lambda number: drafted(Shard(number, 2, group)), range(2)):
            assert_close(rank, whole, "drafts of one of two ranks")


def test_further_layers_are_left_out(untrained: Path, tmp_path: Path) -> None:
    """Of two layers the first drafts everything."""
    import json
    import shutil

    import safetensors.torch

    path = shutil.copytree(untrained, tmp_path / "two")
    (path / "config.json").write_text(json.dumps({**_RAW, "num_nextn_predict_layers": 2}))
    held = safetensors.torch.load_file(path / "model.safetensors")
    second = {
        name.replace(".layers.3.", ".layers.4."): tensor.clone()
        for name, tensor in held.items()
        if ".layers.3." in name
    }
    safetensors.torch.save_file({**held, **second}, path / "model.safetensors")
    with _open(path) as llm, _open(untrained) as one:
        assert replace(llm.plugin.runtime.plan, budget=0) == replace(one.plugin.runtime.plan, budget=0)


def test_the_plan_says_that_a_layer_guesses(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from inference_pio.cli.plan import _show
    from inference_pio.plugin.runtime import RuntimeOptions
    from inference_pio.runtime.plan_only import plan_only

    shown = []
    for options in (RuntimeOptions(), RuntimeOptions(mtp=False)):
        _show(plan_only(str(untrained), "float32", "cpu", options, None, None))
        shown.append("--no-mtp leaves it out" in capsys.readouterr().out)
    assert shown == [True, False]
