"""Every row of the catalogue on every front end: the same error with one line, or the same answer, and nothing is left.

The command line runs in this process over the model that is loaded; that it loads one is what tests/cli is for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import inference_pio.llm
from bad_inputs.rows import Row, rows_of, typed_text, value_of
from inference_pio import LLM, SamplingParams, SecurityLevel, create_plugin, initialize_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, write_tokenizer
from inference_pio.errors import InferencePIOError
from inference_pio.outputs import CompletionOutput
from inference_pio.security import landlock
from inference_pio.worker.runtime import WorkerRuntime
from support.command_line import Result, run_here

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

PARAMETERS, PROMPTS = rows_of("parameters.toml"), rows_of("prompts.toml")
PROMPT = "what is"
SHORT: dict[str, Any] = {"temperature": 0.0, "max_tokens": 4, "repetition_penalty": 1.0}
GREEDY = SamplingParams(**SHORT)
OPTIONS = ("--temperature", "0", "--max-tokens", "4")
# Blocks for about 1,000 tokens, so that 16 answers of 100 have to wait for each other.
LOADED: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.001, "block_size": 16}
TEMPLATE = "{% if tools %}{{ tools | tojson }}{% endif %}{{ date_string }}" + CHAT_TEMPLATE

Outcome = str | list[CompletionOutput]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Subject.of("llama", tmp_path_factory.mktemp("bad_inputs"), collected={}).checkpoint("grouped")
    write_tokenizer(path, TEMPLATE)
    return path


@pytest.fixture(scope="module")
def here(checkpoint: Path) -> Iterator[LLM]:
    with LLM(str(checkpoint), **LOADED) as llm:
        yield llm


@pytest.fixture(scope="module")
def apart(checkpoint: Path) -> Iterator[LLM]:
    with LLM(str(checkpoint), security_level=SecurityLevel.LOW_TRUST, **LOADED) as llm:
        yield llm


@pytest.fixture(scope="module")
def usual(here: LLM) -> list[list[int]]:
    return ids_of(here.generate(PROMPT, GREEDY)[0].outputs)


@pytest.fixture(scope="module")
def pid(apart: LLM) -> int | None:
    return runtime_of(apart).model.pid


@pytest.fixture
def unharmed(here: LLM, apart: LLM, usual: list[list[int]], pid: int | None) -> Iterator[None]:
    """Whatever a test did: both models answer as before, hold no blocks, and the worker is the one that it was."""
    yield
    model = runtime_of(apart).model
    assert (model.pid, model.restarts) == (pid, 0)
    for llm in (here, apart):
        assert ids_of(llm.generate(PROMPT, GREEDY)[0].outputs) == usual
        deadline = time.monotonic() + 5
        while llm._runtime.memory_stats()["kv_cache_used_bytes"]:
            assert time.monotonic() < deadline, "blocks are held for a request that is over"
            time.sleep(0.01)


@pytest.fixture
def cli(
    here: LLM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    class Lent(LLM):
        """The model that is loaded, whoever asks for one."""

        def __init__(self, *_: object, **__: object) -> None:
            vars(self).update(vars(here))

        def close(self) -> None:
            pass

    monkeypatch.setattr(inference_pio.llm, "LLM", Lent)
    return lambda *arguments, stdin=b"": run_here(arguments, stdin, capsys, monkeypatch)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("row", PARAMETERS, ids=str)
def test_sampling_parameters(row: Row, here: LLM, apart: LLM, usual: Any, cli: Callable[..., Result]) -> None:
    asked = {**SHORT, **value_of(row.params)}
    told: list[Outcome] = []
    if "python" in row.front_ends:
        for llm in (here, apart):
            told.append(outcome(lambda llm=llm: llm.generate(PROMPT, SamplingParams(**asked))[0].outputs))
            told.append(outcome(lambda llm=llm: streamed(llm.stream(PROMPT, SamplingParams(**asked)))))
    agree(row, told, usual=usual)
    if "plugin" in row.front_ends:
        started = time.thread_time()
        text = outcome(lambda: here.plugin.generate_text(PROMPT, **asked))
        if row.error:
            complains(row, text)
            assert time.thread_time() - started < row.within
        else:
            assert text == told[0][0].text
    if row.cli is not None:
        command = ("run", "it", PROMPT, "--raw", "--json", *OPTIONS, *row.cli)
        read(row, cli(*command), told[0] if told else "")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("row", [row for row in PROMPTS if row.prompt], ids=str)
def test_prompts(row: Row, here: LLM, apart: LLM, cli: Callable[..., Result]) -> None:
    prompt = value_of(row.prompt)
    told: list[Outcome] = []
    for llm in (here, apart):
        told.append(outcome(lambda llm=llm: llm.generate(prompt, GREEDY)[0].outputs))
        told.append(outcome(lambda llm=llm: streamed(llm.stream(prompt, GREEDY))))
    agree(row, told)
    if isinstance(prompt, dict) and isinstance(prompt.get("prompt_token_ids"), list):
        prompt = [prompt["prompt_token_ids"]]
        text = outcome(lambda: here.plugin.infer(prompt)[0])
    else:
        text = outcome(lambda: here.plugin.generate_text(prompt, **SHORT))
    if row.error:
        complains(row, text)
    if row.typed is not None:
        read(row, cli("run", "it", "--raw", *OPTIONS, stdin=typed_text(row).encode()), told[0])


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("row", [row for row in PROMPTS if row.messages], ids=str)
def test_messages(row: Row, here: LLM, apart: LLM, cli: Callable[..., Result]) -> None:
    messages, more = value_of(row.messages), value_of(row.more)
    told: list[Outcome] = []
    for llm in (here, apart):
        told.append(outcome(lambda llm=llm: llm.chat(messages, GREEDY, **more)[0].outputs))
        if not isinstance(messages, str):  # which is a prompt that is written already
            told.append(outcome(lambda llm=llm: streamed(llm.stream_chat(messages, GREEDY, **more))))
    specials = 0
    if row.holds:
        prompts = [llm.chat(messages, GREEDY, **more)[0].prompt_token_ids for llm in (here, apart)]
        assert prompts[0] == prompts[1]
        marks = here.plugin.runtime.tokenizer.special_token_ids
        specials = sum(token_id in marks for token_id in prompts[0])
    agree(row, told, specials=specials)
    if not more:
        text = outcome(lambda: here.plugin.chat_completion(messages, **SHORT))
        if row.error:
            complains(row, text)
        else:
            assert text == told[0][0].text
    if row.typed is not None:
        typed = typed_text(row).encode()
        read(
            row,
            cli("run", "it", "--json", *OPTIONS, stdin=typed),
            told[0] if row.typed in row.messages else "",
        )
        _talk(row, cli("chat", "it", *OPTIONS, stdin=typed + f"\n{PROMPT}\n".encode()), here)


def _talk(row: Row, said: Result, here: LLM) -> None:
    """What is wrong with a message is told, and the next one has its answer."""
    assert said.code == 0, said
    assert "Traceback" not in said.err, said
    if row.error:
        assert said.err.count("(error: ") == 1, said
        assert all(word in said.err for word in row.chat_words), said
        usual = here.chat([{"role": "user", "content": PROMPT}], GREEDY)[0].outputs[0].text
        assert said.out.startswith(usual), said
    else:
        assert "error" not in said.err, said


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("row", [row for row in PROMPTS if row.model], ids=str)
def test_names_of_models(
    row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, and nobody is asked."""
    home, model = tmp_path / "home", value_of(row.model)
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(home))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it went to the network"))
    plugin = create_plugin("llama")
    named = plugin.config_class(model_path=model) if model else None
    told = [
        outcome(lambda: LLM(model)),
        outcome(lambda: LLM(model, security_level=SecurityLevel.LOW_TRUST)),
        *([outcome(lambda: initialize_plugin(plugin, config=named))] if named else []),
    ]
    agree(row, told)
    read(row, run_here(("run", model, PROMPT), b"", capsys, monkeypatch), "")
    assert not (home / "models").exists()


def outcome(ask: Callable[[], Any]) -> Any:
    """What comes of it: answers, or "name of the error: its line". Any other error fails the test."""
    try:
        return ask()
    except InferencePIOError as error:
        return f"{type(error).__name__}: {error}"


def streamed(chunks: Iterator[Any]) -> list[CompletionOutput]:
    """A stream put together."""
    outputs: dict[int, CompletionOutput] = {}
    for chunk in chunks:
        output = outputs.setdefault(chunk.index, CompletionOutput(chunk.index, "", []))
        output.text += chunk.text
        output.token_ids += chunk.token_ids
        output.finish_reason = chunk.finish_reason or output.finish_reason
        output.text.encode()
    return [outputs[index] for index in sorted(outputs)]


def ids_of(outputs: Sequence[CompletionOutput]) -> list[list[int]]:
    return [output.token_ids for output in outputs]


def runtime_of(llm: LLM) -> WorkerRuntime:
    assert isinstance(llm._runtime, WorkerRuntime)
    return llm._runtime


def agree(row: Row, told: list[Any], **names: Any) -> None:
    """All front ends say the same, and it is what the row expects."""
    if row.error:
        for one in told:
            complains(row, one)
        if row.same_words and told:
            assert len({re.sub(r"request (request-)?\d+", "request", one) for one in told}) == 1, told
        return
    for one in told:
        assert not isinstance(one, str), one
        assert ids_of(one) == ids_of(told[0])
        assert [output.text for output in one] == [output.text for output in told[0]]
        reasons = [output.finish_reason for output in one]
        assert value_of(row.holds, answers=ids_of(one), reasons=reasons, **names), one


def complains(row: Row, told: Any) -> None:
    assert isinstance(told, str), told
    assert told.startswith(f"{row.error}: "), told
    is_one_line(told)
    for word in row.words:
        assert word in told


def is_one_line(text: str) -> None:
    """Short, and without what only a program can read."""
    assert "\n" not in text
    assert len(text) < 400
    assert not re.search(r"0x[0-9a-f]{6,}|Traceback|<[\w.]+ object|internal error", text), text


def read(row: Row, said: Result, wanted: Any) -> None:
    """What the command line said; of what is accepted it has the tokens that Python has."""
    if row.error:
        said.complains(row.kind.exit_code, *(row.cli_words or row.words))  # type: ignore[attr-defined]
        is_one_line(said.err.rstrip("\n"))
        return
    assert said.code == 0, said
    document = json.loads(said.out)
    if wanted:
        found = [document, *document.get("alternatives", [])]
        assert [answer["token_ids"] for answer in found] == ids_of(wanted)


def test_the_whole_catalogue_is_here() -> None:
    """Every number has a row, or says why it has none."""
    import tomllib

    stated: set[str] = {row.id for row in [*PARAMETERS, *PROMPTS]}
    for file in ("parameters.toml", "prompts.toml"):
        for each in tomllib.loads(Path(__file__).with_name(file).read_text())["left_out"]:
            stated |= set(each["id"].split(", "))
    assert stated == {f"S{number}" for number in range(1, 22)} | {f"M{number}" for number in range(1, 17)}
