"""A plan that does not fit is made to: what is given up first, what never, and the least that would do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from inference_pio import ResourceLimits
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ResourceError, UsageError
from inference_pio.optimizations.quality import Grant
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime import planning
from inference_pio.runtime.fitting import Fitted
from inference_pio.runtime.opened import OpenedModel, model_store, open_model
from support.layered import layered

SMALL = {"max_num_seqs": 1, "max_num_batched_tokens": 128, "speculation": 0}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedModel]:
    path = Subject.of("llama", tmp_path_factory.mktemp("fitting"), collected={}).checkpoint("grouped")
    found = open_model(str(path), RuntimeOptions(), None, model_store(None))
    yield found
    found.checkpoint.close()


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedModel]:
    """With weights that count beside the rest."""
    found = open_model(
        str(layered(tmp_path_factory.mktemp("deep"), 24)), RuntimeOptions(), None, model_store(None)
    )
    yield found
    found.checkpoint.close()


def planned(opened: OpenedModel, memory_bytes: int, **options: Any) -> Fitted:
    plugin = default_registry().create("llama")
    fields = {"device_map": "cpu", "torch_dtype": options.pop("dtype", "float32")}
    config = plugin.config_class(model_path=str(opened.source.path), model_name="tiny", **fields)
    limits = ResourceLimits(memory_gb=(memory_bytes + 1) / 1e9)  # which is rounded down
    return planning.plan_within(plugin, config, RuntimeOptions(**options), limits, None, opened)


def needs(opened: OpenedModel, **options: Any) -> int:
    return planned(opened, 10**10, **options).prepared.plan.least


def test_what_fits_stays_as_it_is(opened: OpenedModel) -> None:
    fitted = planned(opened, 10**10, fit=True)
    assert (fitted.steps, fitted.in_words()) == ((), "")
    assert fitted.prepared is fitted.asked


def test_the_cheapest_that_helps_is_given_up_first(opened: OpenedModel) -> None:
    few = {"max_num_seqs": 4, "speculation": 0, "mtp": False}
    fitted = planned(opened, needs(opened, **few), fit=True)
    assert [step.technique for step in fitted.steps] == ["fewer_sequences"]
    assert vars(fitted.prepared.options) == {**vars(RuntimeOptions(fit=True)), **few}
    assert fitted.steps[0].bytes_before == needs(opened) > fitted.steps[0].bytes_after == needs(opened, **few)
    assert fitted.as_dict()["before"]["fits"] is False
    assert fitted.as_dict()["fits"] is True


def test_without_the_option_the_refusal_says_what_it_would_do(opened: OpenedModel) -> None:
    limit = needs(opened, **SMALL)
    with pytest.raises(
        ResourceError, match=r"^tiny does not fit: weights .* memory_gb; .*--fit.*optimize.* makes"
    ):
        planned(opened, limit)
    assert planned(opened, limit, fit=True).prepared.plan.fits


def test_the_least_that_is_named_does(opened: OpenedModel) -> None:
    with pytest.raises(ResourceError, match="does not fit") as refused:
        planned(opened, 1000, fit=True)
    found = re.search(r"needs (\S+) GB at least", str(refused.value))
    assert found is not None
    named = round(float(found[1]) * 1e9)
    assert planned(opened, named, fit=True).prepared.plan.fits
    with pytest.raises(ResourceError):
        planned(opened, named - 10**7, fit=True)


def test_a_cache_that_is_too_large_gets_what_is_left(opened: OpenedModel) -> None:
    limit = needs(opened) + 2_000_000
    fitted = planned(opened, limit, kv_cache_memory_gb=0.008, fit=True)
    assert fitted.steps[0].technique == "kv_cache_size"
    assert 0 < fitted.prepared.plan.kv_cache <= 2_000_000 + needs(opened)


def test_a_context_that_was_asked_for_is_kept_as_long_as_it_can_be(opened: OpenedModel) -> None:
    long = {"max_model_len": 256, "block_size": 16}
    least = planned(opened, 10**10, **SMALL, **long).prepared.plan
    assert planned(opened, least.least, fit=True, **long).prepared.plan.max_model_len == 256
    assert {step.technique for step in planned(opened, least.least, fit=True, **long).steps} >= {
        "fewer_sequences"
    }


@pytest.mark.parametrize(
    ("grant", "taken", "said"),
    [
        (Grant(True, "KL 0.001, top-1 0.99"), True, "(KL 0.001, top-1 0.99)"),
        (None, True, "was not measured"),
        (Grant(False, "KL 0.9 > 0.01 of level faithful"), False, "KL 0.9 > 0.01 of level faithful"),
    ],
)
def test_weights_in_fewer_bits_are_a_matter_of_their_receipt(
    deep: OpenedModel, monkeypatch: pytest.MonkeyPatch, grant: Grant | None, taken: bool, said: str
) -> None:
    monkeypatch.setattr(planning, "word_of_receipts", lambda *_: lambda *_: grant)
    usual = {"dtype": "auto", "disable": ("kv_int8",)}
    limit = needs(deep, quantize="int8", **usual, **SMALL)
    assert limit < needs(deep, **usual, **SMALL)
    if not taken:
        with pytest.raises(ResourceError, match=re.escape(said)):
            planned(deep, limit, fit=True, **usual)
        return
    fitted = planned(deep, limit, fit=True, **usual)
    assert fitted.prepared.options.quantize == "int8"
    assert said in fitted.steps[-1].reason
    assert fitted.left_out["kv_int8"] == "switched off by name"


def test_nothing_approximate_where_the_quality_is_exact(deep: OpenedModel) -> None:
    limit = needs(deep, dtype="auto", quantize="int8", **SMALL)
    assert planned(deep, limit, dtype="auto", fit=True).prepared.plan.fits
    with pytest.raises(ResourceError, match="at least"):
        planned(deep, limit, dtype="auto", quality="exact", fit=True)


def test_threads_are_no_more_than_the_limit_allows() -> None:
    limits = ResourceLimits(cpu_percent=100)
    options, reason = planning.fewer_threads(RuntimeOptions(threads=7, fit=True), limits)
    assert (options.threads, reason) == (1, "1 compute threads, not 7")
    assert planning.fewer_threads(RuntimeOptions(threads=7), limits)[1] == ""
    with pytest.raises(UsageError, match="fit must be True or False"):
        RuntimeOptions(fit="yes")  # type: ignore[arg-type]
