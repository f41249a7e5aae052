"""What the command line can say about how a model runs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from inference_pio.cli.engine_options import EngineOptions
from inference_pio.plugin.runtime import RuntimeOptions

# Options of another name or sense, those of the verb, and what only a program has a use for.
_OTHERWISE = {"download": "--offline", "mtp": "--no-mtp", "max_num_seqs": "-n", "skip_tokenizer_init": ""}


def test_every_option_of_the_engine_can_be_typed() -> None:
    typed = {field.name for field in fields(EngineOptions)}
    assert sorted(RuntimeOptions.names() - typed) == sorted(_OTHERWISE)


def test_only_what_was_typed_counts_as_given() -> None:
    """A default that nobody named must give way to what was tuned; one that was typed must not."""
    assert EngineOptions().given(None) == {}
    named = {"block_size": RuntimeOptions.block_size, "max_num_batched_tokens": 512, "speculation": 15}
    assert EngineOptions(**named).given(None) == named


def test_an_option_reaches_its_technique(cli: Any, tiny: Path) -> None:
    ranks = cli("plan", str(tiny), "--techniques", "--dtype", "float32", "--tensor-parallel-size", "2").out
    assert "2 ranks as threads of this process" in ranks
    cli("plan", str(tiny), "--keep-vocabulary", "256", "--dtype", "float32").complains(
        2,
        "keep_vocabulary 256: shorter vocabulary cannot be used here: 256 + 1024 tokens are the whole vocabulary",
    )


def test_ranks_that_do_not_divide_the_model(cli: Any, tiny: Path) -> None:
    cli("plan", str(tiny), "--dtype", "float32", "--tensor-parallel-size", "7").complains(
        2, "tensor_parallel_size 7: this model can be divided over"
    )


def test_ranks_of_weights_in_blocks_are_refused_and_not_forgotten(cli: Any, tiny: Path) -> None:
    """Who asks for ranks and gets none must hear of it."""
    typed = ("run", str(tiny), "hello", "--quantize", "int8", "--tensor-parallel-size", "2")
    cli(*typed).complains(2, "tensor_parallel_size 2: weights in blocks are not divided: name a dtype")
