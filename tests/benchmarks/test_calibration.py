"""Receipts: what is measured, what it allows, and how a model is loaded under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from inference_pio import LLM
from inference_pio.benchmarks import calibration
from inference_pio.benchmarks.calibration import Calibration, calibrate
from inference_pio.benchmarks.divergence import Divergence, Probe, divergence, probes_of, worse
from inference_pio.benchmarks.fewest import fewest
from inference_pio.benchmarks.variant import Followed, Variant
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ModelFileError, UsageError
from inference_pio.loader.store import ModelStore
from inference_pio.optimizations.quality import LEVELS, Level
from inference_pio.runtime.receipts import (
    Entry,
    Measured,
    Receipt,
    read_receipt,
    receipt_path,
    save_receipt,
)

_WORDS = "the cat sat on the mat and looked at the other cat while it slept in the sun "


def _receipt(**changes: object) -> Receipt:
    good = Measured(0.001, 0.99, 9.0)
    entries = {"kv_int8": Entry(good, (2,)), "other": Entry(Measured(0.5, 0.2, 30.0), reason="KL 0.5 > 0.01")}
    usual = {
        "version": 1,
        "checkpoint": "a" * 64,
        "weights": "auto",
        "model": "tiny",
        "date": "2026-11-26T12:00:00+00:00",
        "kernels": "avx2",
        "reference": "float32 weights and cache",
        "text": "b" * 64,
        "tokens": 1088,
        "base": good,
        "levels": {"faithful": entries, "fast": {}},
        "together": {"faithful": good, "fast": good},
    }
    return Receipt(**{**usual, **changes})  # type: ignore[arg-type]


def test_divergence_equals_the_textbook() -> None:
    torch.manual_seed(3)
    expected, found = torch.randn(70, 50), torch.randn(70, 50)
    probe = Probe([1], torch.randint(0, 50, (70,)).tolist())
    result = divergence([expected], [found], [probe])
    kl = functional.kl_div(
        found.log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    assert result.kl == pytest.approx(kl.mean().item(), rel=1e-5)
    assert result.top1 == pytest.approx((expected.argmax(-1) == found.argmax(-1)).double().mean().item())
    perplexity = math.exp(functional.cross_entropy(found, torch.tensor(probe.answer)).item())
    assert result.perplexity == pytest.approx(perplexity, rel=1e-5)
    assert result.tokens == 70
    same = divergence([expected], [expected], [probe])
    assert (same.kl, same.top1) == (0.0, 1.0)


def test_what_only_long_prompts_show_is_not_drowned_by_short_ones() -> None:
    probes = [Probe([0] * 192, [1] * 64)] * 16 + [Probe([0] * 2048, [1] * 192)]
    reference = [torch.zeros(len(probe.answer), 8) for probe in probes]
    moved = torch.zeros(192, 8)
    moved[:, 3] = 2.0
    alone = divergence(reference[-1:], [moved], probes[-1:])
    found = worse(reference, [*reference[:-1], moved], probes)
    assert found.kl == pytest.approx(alone.kl)
    assert found.top1 == alone.top1 == 0.0
    assert divergence(reference, [*reference[:-1], moved], probes).kl < alone.kl / 5


def test_probes_come_from_all_over_the_text() -> None:
    ids = list(range(10_000))
    probes = probes_of(ids, 8192)
    assert [(len(probe.prompt), len(probe.answer)) for probe in probes] == [(192, 64)] * 16 + [(2048, 192)]
    assert probes[0].prompt[0] == 0
    assert probes[15].answer[-1] == 9999
    assert all(probe.answer[0] == probe.prompt[-1] + 1 for probe in probes)
    assert {len(probe.prompt) for probe in probes_of(ids, 128)} == {64}
    with pytest.raises(UsageError, match="the text has 300 tokens; two pieces of 256 are the least"):
        probes_of(list(range(300)), 8192)


def test_layers_that_spoil_it_are_left_out_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up technique of which layers 1 and 4 of 6 are bad: the search finds these two."""
    probes = [Probe([0], [1] * 40)] * 3
    reference = [torch.zeros(40, 8)] * 3
    harm, asks = [0.1, 3.0, 0.1, 0.1, 2.0, 0.1], []

    def run(_model: str, variant: Variant, asked: Sequence[Probe]) -> Followed:
        exempt = variant.approximate.get("made_up", range(6))
        asks.append(len(exempt))
        total = sum(amount for layer, amount in enumerate(harm) if layer not in exempt)
        logits = torch.zeros(40, 8)
        logits[:, 3] = total
        return Followed([logits] * len(asked), frozenset({"made_up"}), {})

    monkeypatch.setattr(calibration, "alone", lambda name, exempt=(): Variant({name: tuple(exempt)}))
    work = Calibration("tiny", probes, reference, lambda _: None, run)
    found = work.layers_to_leave("made_up", Level("any", 0.012, 0.0), 6, 0.0)
    assert found is not None
    assert found[1] == (1, 4)
    assert asks[:7] == [6, *[5] * 6], "without it, and in each layer alone"
    assert len(asks) <= 10
    strict, nothing = Level("strict", 0.0, 0.0), Divergence(0.0, 0.0, 1.0, 8.0, 40)
    assert work.layers_to_leave("made_up", strict, 6, 0.0) is None
    refused = calibration._at_level(work, strict, {"made_up": calibration._BY_LAYERS}, nothing, 6)["made_up"]
    assert refused.reason.startswith("in the layer that stands it best, KL ")
    assert len(refused.exempt) == 5


def test_layers_are_ranked_where_the_technique_does_something() -> None:
    probes = [Probe([0], [1] * 40)] * 3 + [Probe([0] * 9, [1] * 40)]
    asked: list[list[Probe]] = []

    def run(_model: str, _variant: Variant, pieces: Sequence[Probe]) -> Followed:
        asked.append(list(pieces))
        return Followed([torch.zeros(len(piece.answer), 8) for piece in pieces], frozenset(), {})

    work = Calibration("tiny", probes, [torch.zeros(40, 8)] * 4, lambda _: None, run, {"kv_eviction"})
    assert [group for group, _ in work.most_sensitive("kv_int4", 2)] == [(0,), (1,)]
    groups = [group for group, _ in work.most_sensitive("kv_eviction", 20)]
    assert groups == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (12, 13, 14), (15, 16, 17), (18, 19)]
    assert [[len(piece.prompt) for piece in pieces] for pieces in asked] == [[1, 1]] * 3 + [[9]] * 8
    assert {len(piece.answer) for pieces in asked for piece in pieces} == {32}


@given(st.integers(1, 40), st.integers(-3, 60), st.integers(0, 45))
def test_the_fewest_that_will_do(most: int, guess: int, limit: int) -> None:
    tried: list[int] = []

    def will_do(count: int) -> bool:
        assert 1 <= count <= most
        tried.append(count)
        return count >= limit

    assert fewest(will_do, guess, 1, most) == (max(1, limit) if limit <= most else None)
    assert len(tried) == len(set(tried))
    if guess == limit and 1 < guess <= most:
        assert len(tried) == 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    subject = Subject.of("llama", tmp_path_factory.mktemp("calibrated"), collected={})
    return Path(subject.checkpoint("grouped"))


def test_what_the_receipt_allows_acts_from_then_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))

    def kv_int8(**options: str) -> dict[str, object]:
        with LLM(str(tiny), dtype="float32", max_num_seqs=1, **options) as llm:  # type: ignore[arg-type]
            families = {entry["name"]: entry for entry in llm.plugin.get_optimization_report()}
            return next(
                one for one in families["KV-cache compression"]["techniques"] if one["name"] == "kv_int8"
            )

    assert "has no receipt" in str(kv_int8()["reason"])
    told: list[str] = []
    receipt = calibrate(str(tiny), _WORDS * 60, told.append, dtype="float32")
    assert told[:2] == ["the reference, in float32", "as it is, nothing approximate"]
    assert "kv_int8" in told
    assert "sparse_decode" not in receipt.levels["fast"], "its contexts are too short"
    entry = receipt.levels["faithful"]["kv_int8"]
    assert entry.reason == ""
    assert 0 < entry.measured.kl < 0.01
    save_receipt(ModelStore(), receipt)
    found = kv_int8()
    assert (found["status"], found["layers"]) == ("active", 2)
    assert "KL " in str(found["reason"])
    assert kv_int8(quality="exact")["status"] == "dormant"
    assert "has no receipt" in str(kv_int8(quantize="int8")["reason"]), "other weights, other figures"


def test_a_receipt_is_no_other_checkpoints(tmp_path: Path) -> None:
    store, receipt = ModelStore(tmp_path), _receipt()
    assert read_receipt(store, "a" * 64, "auto") is None
    save_receipt(store, receipt)
    assert read_receipt(store, "a" * 64, "auto") == receipt
    receipt_path(store, "a" * 64, "auto").rename(receipt_path(store, "c" * 64, "auto"))
    with pytest.raises(
        ModelFileError, match=r"the receipt of another checkpoint, tiny \(aaaaaaaaaaaa, auto\) \(remove it"
    ):
        read_receipt(store, "c" * 64, "auto")
    for written in (b"{", b"[]", b'{"version": 1, "levels": {}}', b'{"model": "tiny"}'):
        receipt_path(store, "d" * 64, "auto").write_bytes(written)
        with pytest.raises(ModelFileError, match="not a receipt"):
            read_receipt(store, "d" * 64, "auto")
    save_receipt(store, msgspec.structs.replace(receipt, version=0))
    assert read_receipt(store, "a" * 64, "auto") is None, "another version's figures mean something else"


def test_what_a_receipt_grants() -> None:
    receipt = _receipt()
    good = receipt.grant("kv_int8", "faithful")
    assert good.allowed
    assert good.exempt == (2,)
    assert good.reason == "KL 0.001, top-1 0.990 on 1,088 tokens, layers 2 left as they are"
    assert not receipt.grant("other", "faithful").allowed
    assert receipt.grant("other", "faithful").reason == "KL 0.5 > 0.01"
    assert "does not have it: calibrate again" in receipt.grant("new", "faithful").reason


def test_together_is_within_the_bound_or_something_leaves() -> None:
    probes, reference = [Probe([0], [1] * 40)], [torch.zeros(40, 8)]
    harm = {"one": 0.9, "two": 0.5}

    def run(_model: str, variant: Variant, asked: Sequence[Probe]) -> Followed:
        logits = torch.zeros(40, 8)
        logits[:, 3] = sum(harm[name] for name in variant.approximate)
        return Followed([logits] * len(asked), frozenset(variant.approximate), {})

    work = Calibration("tiny", probes, reference, lambda _: None, run)
    entries = {name: Entry(Measured(amount / 20, 1.0, 1.0)) for name, amount in harm.items()}
    level = Level("any", 0.06, 0.0)
    measured = calibration._together(work, level, entries)
    assert measured.kl <= level.max_kl
    assert [name for name, entry in entries.items() if not entry.reason] == ["two"]
    assert "with two: KL" in entries["one"].reason


def test_a_model_that_is_outside_by_itself_is_said_to_be() -> None:
    work = Calibration("tiny", [], [], lambda _: None)
    base, found = Divergence(0.006, 0.0, 0.944, 9.0, 40), Divergence(0.007, 0.0, 0.947, 9.0, 40)
    entries = calibration._at_level(
        work, LEVELS["faithful"], {"kv_int8": found, "skipped_layers": "…"}, base, 6
    )
    assert {name: entry.reason for name, entry in entries.items()} == {
        "kv_int8": "without it already top-1 agreement 0.944 < 0.95 of level faithful"
    }


def test_levels_are_ordered() -> None:
    assert LEVELS["faithful"].max_kl < LEVELS["fast"].max_kl


def test_figures_over_the_bound_grant_nothing_whatever_else_a_receipt_says() -> None:
    """An edited file: the word that forbids it is gone, the figures are not."""
    edited = _receipt(levels={"faithful": {"kv_int8": Entry(Measured(0.5, 0.2, 30.0))}, "fast": {}})
    granted = edited.grant("kv_int8", "faithful")
    assert (granted.allowed, granted.reason) == (False, "KL 0.5 > 0.01 of level faithful")
    nothing = _receipt(levels={"faithful": {"kv_int8": Entry(Measured(float("nan"), 1.0, 1.0))}, "fast": {}})
    assert not nothing.grant("kv_int8", "faithful").allowed
