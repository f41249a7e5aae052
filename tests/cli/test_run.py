"""`run`: what reaches the model, what reaches stdout and stderr."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, RequestOutput, SamplingParams
from inference_pio.ops import native

GREEDY = ("--temperature", "0", "--repetition-penalty", "1", "--dtype", "float32")


@pytest.fixture(scope="module")
def reference(tiny: Path) -> dict[str, RequestOutput]:
    """The same prompts through the Python interface."""
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=2)
    with LLM(str(tiny), dtype="float32") as llm:
        chat = [{"role": "user", "content": "the hand"}]
        system = [{"role": "system", "content": "be brief"}, *chat]
        return {
            "raw": llm.generate("the hand", params)[0],
            "chat": llm.chat(chat, params)[0],
            "system": llm.chat(system, params)[0],
        }


def run_json(cli: Any, *arguments: object, **options: Any) -> dict[str, Any]:
    result = cli("run", *arguments, "--json", *GREEDY, **options)
    assert result.code == 0, result
    document: dict[str, Any] = json.loads(result.out)
    return document


@pytest.mark.parametrize(
    ("kind", "options"), [("raw", ["--raw"]), ("chat", []), ("system", ["--system", "be brief"])]
)
def test_prompt_reaches_the_model_as_asked(
    cli: Any, tiny: Path, reference: dict[str, RequestOutput], kind: str, options: list[str]
) -> None:
    expected = reference[kind]
    document = run_json(cli, tiny, "the hand", "--max-tokens", 12, "--logprobs", 2, *options)
    answer = expected.outputs[0]
    assert document["token_ids"] == answer.token_ids
    assert document["text"] == answer.text
    assert document["finish_reason"] == answer.finish_reason
    assert document["usage"] == {
        "prompt_tokens": len(expected.prompt_token_ids),
        "completion_tokens": len(answer.token_ids),
        "total_tokens": len(expected.prompt_token_ids) + len(answer.token_ids),
    }
    assert answer.logprobs is not None
    for shown, scores in zip(document["logprobs"], answer.logprobs, strict=True):
        assert {entry["token_id"]: entry["rank"] for entry in shown} == {
            token_id: entry.rank for token_id, entry in scores.items()
        }
        assert [entry["logprob"] for entry in shown] == sorted(
            (entry["logprob"] for entry in shown), reverse=True
        )
    timings = document["timings"]
    assert 0 < timings["time_to_first_token_seconds"] <= timings["total_seconds"]
    assert timings["prompt_tokens_per_second"] == pytest.approx(
        len(expected.prompt_token_ids) / timings["time_to_first_token_seconds"], rel=0.1
    )
    performance = document["performance"]
    seconds = performance["latency_ms"] / 1000
    assert seconds == pytest.approx(timings["total_seconds"], abs=0.03)
    assert performance["throughput_tokens_per_sec"] * seconds == pytest.approx(len(answer.token_ids))
    assert performance["accuracy_score"] is None
    assert performance["resource_utilization"]["sequences_per_step"] == 1


def test_prompt_from_file_stdin_and_argument_are_one(cli: Any, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"the hand\n")
    arguments = (tiny, "--max-tokens", 4)
    wanted = run_json(cli, *arguments, "the hand")["token_ids"]
    assert run_json(cli, *arguments, "--prompt-file", file)["token_ids"] == wanted
    assert run_json(cli, *arguments, stdin=b"the hand\n")["token_ids"] == wanted
    assert run_json(cli, *arguments, "-", stdin=b"the hand\n")["token_ids"] == wanted


def test_text_streams_to_stdout_and_figures_to_stderr(
    cli: Any, tiny: Path, reference: dict[str, RequestOutput]
) -> None:
    result = cli("run", tiny, "the hand", "--raw", "--max-tokens", 12, *GREEDY)
    assert (result.code, result.out) == (0, reference["raw"].outputs[0].text + "\n")
    figures = r"prompt \d+ tokens, [\d.]+ tok/s · answer 12 tokens, [\d.]+ tok/s · first token [\d.]+ s · load [\d.]+ s"
    assert re.match(figures, result.err), result.err
    quiet = cli("run", tiny, "the hand", "--raw", "--max-tokens", 12, "--quiet", *GREEDY)
    assert (quiet.out, quiet.err) == (result.out, "")


def test_guesses_are_told_where_there_were_any(cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where drafts cost nothing."""
    from inference_pio.engine.step_costs import StepCosts

    monkeypatch.setattr(StepCosts, "comparable", True)
    monkeypatch.setattr(StepCosts, "ratios", lambda _, most: [(1, 1.0)] if most else [])
    arguments = ("run", tiny, "the hand " * 12, "--raw", "--max-tokens", 60, *GREEDY)
    told = cli(*arguments)
    assert re.search(r" · guessed \d+ tokens ahead, \d+ of them right", told.err), told.err
    off = cli(*arguments, "--speculation", 0)
    assert off.out == told.out
    assert "guessed" not in off.err


def test_sampling_options_act(cli: Any, tiny: Path) -> None:
    """Each option changes what comes out, or keeps it where it must."""
    # In bfloat16 torch's products depend on how many rows they have, and so on what was guessed ahead.
    base = (
        tiny,
        "the hand",
        "--raw",
        "--max-tokens",
        16,
        "--temperature",
        1.5,
        "--seed",
        3,
        "--dtype",
        "float32",
    )

    def ids(*options: object) -> list[int]:
        result = cli("run", *base, "--json", "--repetition-penalty", 1, *options)
        assert result.code == 0, result
        found: list[int] = json.loads(result.out)["token_ids"]
        return found

    usual = ids()
    assert ids() == usual
    assert ids("--seed", 4) != usual
    greedy = ids("--temperature", 0)
    for filtered in (("--top-k", 1), ("--top-p", 0.0001), ("--min-p", 1), ("--typical-p", 1, "--top-k", 1)):
        assert ids(*filtered) == greedy, filtered
    for penalty in ("--repetition-penalty", "--presence-penalty", "--frequency-penalty"):
        assert ids("--temperature", 0, penalty, 2) != greedy, penalty
    assert len(ids("--min-tokens", 16)) == 16
    assert len(ids("--max-tokens", 3)) == 3


def test_stop_and_n(cli: Any, tiny: Path) -> None:
    text = run_json(cli, tiny, "the hand", "--raw", "--max-tokens", 40)["text"]
    stop = next(char for char in text if char.isprintable() and char not in (" ", "�"))
    stopped = run_json(cli, tiny, "the hand", "--raw", "--max-tokens", 40, "--stop", "never", "--stop", stop)
    assert stopped["text"] == text[: text.index(stop)]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", stop)
    sampled = cli(
        "run", tiny, "a", "--json", "-n", 3, "--temperature", 2, "--top-p", 1, "--top-k", 0, "--seed", 1,
        "--max-tokens", 8,
    )  # fmt: skip
    document = json.loads(sampled.out)
    answers = [document, *document["alternatives"]]
    assert len({tuple(answer["token_ids"]) for answer in answers}) == 3
    assert document["usage"]["completion_tokens"] == sum(len(answer["token_ids"]) for answer in answers)
    listed = cli("run", tiny, "a", "-n", 2, "--max-tokens", 4, "--seed", 1)
    assert "[1] " in listed.out
    assert "[2] " in listed.out


def test_answer_fits_the_context_where_no_length_is_asked(cli: Any, tiny: Path) -> None:
    """The usual 512 tokens do not fit 64: the answer takes what is left, and says that it was cut off."""
    result = cli("run", tiny, "the hand", "--raw", "--max-model-len", 64, "--json", *GREEDY)
    usage = json.loads(result.out)["usage"]
    assert usage["total_tokens"] <= 64
    shown = cli("run", tiny, "the hand", "--raw", "--max-tokens", 2, *GREEDY)
    assert "cut off after 2 tokens: --max-tokens allows more" in shown.err
    full = cli("run", tiny, "the hand", "--raw", "--max-model-len", 32, "--min-tokens", 10, *GREEDY)
    assert "cut off: the context of 32 tokens is full" in full.err


@pytest.mark.weights
@pytest.mark.slow
def test_a_real_model_says_paris(cli: Any, smollm2_path: Path) -> None:
    result = cli("run", smollm2_path, "What is the capital of France?", "--temperature", 0)
    assert result.code == 0
    assert "Paris" in result.out


@pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
def test_quantising_and_the_cache_type_reach_the_model(cli: Any, tiny: Path) -> None:
    options = ("--temperature", "0", "--max-tokens", "12", "--raw")
    asked = ("--quantize", "int4:64", "--kv-cache-dtype", "float32")
    params = SamplingParams(temperature=0, max_tokens=12)
    with LLM(str(tiny), quantize="int4:64", kv_cache_dtype="float32") as llm:
        expected = llm.generate("the hand", params)[0].outputs[0].token_ids
    result = cli("run", tiny, "the hand", *options, *asked, "--json")
    assert result.code == 0, result
    assert json.loads(result.out)["token_ids"] == expected
    plain = cli("run", tiny, "the hand", *options, "--json", "--dtype", "float32")
    assert json.loads(plain.out)["token_ids"] != expected, "four bits change what this noise says"


def test_what_the_prefix_cache_gave_is_told_on_request(
    cli: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))
    arguments = ["--raw", "--max-tokens", 1, "--prefix-cache-disk-gb", "0.01", "--explain-cache", *GREEDY]
    text = "abcdefghijklmnopqrstuvwxyz " * 3
    first = cli("run", tiny, text, *arguments, "--quiet")
    assert re.fullmatch(r"cache: 0 of \d+ tokens reused; nothing known begins like it\n", first.err)
    other = cli("run", tiny, text[:50] + "Z" + text[51:], *arguments, "--quiet")
    assert re.fullmatch(
        r"cache: 32 of \d+ tokens reused; diverged at token \d+: was '.+', is '.*Z.*' \(reused are whole "
        r"blocks of 32\)\n",
        other.err,
    ), other.err
    document = json.loads(cli("run", tiny, text, *arguments, "--json").out)
    assert document["cache"]["reason"] == "whole"
    assert document["cache"]["text"].startswith("cache: ")
