"""A worker's requests: whoever tells what the engine's steps gave, nothing is lost, twice or out of order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.conformance.subject import Subject
from inference_pio.runtime.local import LocalRuntime
from inference_pio.worker.as_data import params_as_data
from inference_pio.worker.messages import Ended, Failed, FromWorker, Generate, Pieces
from inference_pio.worker.requests import Requests

PARAMS = SamplingParams(n=2, temperature=1.0, seed=3, max_tokens=12, ignore_eos=True)
PROMPTS = ["the cat", "one two", "words", "a b c"]


class Heard:
    """What a parent would hear."""

    def __init__(self) -> None:
        self.messages: list[FromWorker] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def say(self, message: FromWorker) -> None:
        with self._changed:
            self.messages.append(message)
            self.threads.add(threading.current_thread().name)
            self._changed.notify_all()

    def wait_for_ends(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._ends() == count, 30), self._ends()

    def _ends(self) -> int:
        return sum(isinstance(message, (Ended, Failed)) for message in self.messages)

    def answers(self, request: int) -> dict[int, list[int]]:
        told: dict[int, list[int]] = {}
        for message in self.messages:
            for piece in message.of if isinstance(message, Pieces) else ():
                if piece.request == request:
                    so_far = told.setdefault(piece.index, [])
                    assert piece.position == len(so_far)
                    so_far += piece.token_ids
        return told


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    checkpoint = Subject.of("llama", tmp_path_factory.mktemp("requests"), collected={}).checkpoint("grouped")
    with LLM(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.02, block_size=16) as llm:
        yield llm


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_answers_are_told_as_they_come(llm: LLM, beside: bool, whole: bool) -> None:
    wanted = llm.generate(PROMPTS, PARAMS)
    runtime, heard = llm._runtime, Heard()
    assert isinstance(runtime, LocalRuntime)
    requests = Requests(runtime, heard.say, beside=beside)
    for number, prompt in enumerate(PROMPTS):
        requests.add(Generate(number, params_as_data(PARAMS), prompt, whole=whole), ())
    heard.wait_for_ends(len(PROMPTS))
    requests.close()
    for number, output in enumerate(wanted):
        assert heard.answers(number) == {answer.index: answer.token_ids for answer in output.outputs}
    for number in range(len(PROMPTS)):  # the end of a request is the last that is said of it
        end = next(
            i for i, each in enumerate(heard.messages) if isinstance(each, Ended) and each.request == number
        )
        later = [each for each in heard.messages[end:] if isinstance(each, Pieces)]
        assert not any(piece.request == number for each in later for piece in each.of)
    engine, teller = "inference-pio-engine", "inference-pio-teller"
    assert (teller if beside else engine) in heard.threads
    assert (engine if beside else teller) not in heard.threads


def test_a_request_that_is_given_up_ends(llm: LLM) -> None:
    runtime, heard = llm._runtime, Heard()
    assert isinstance(runtime, LocalRuntime)
    requests = Requests(runtime, heard.say, beside=False)
    endless = params_as_data(SamplingParams(max_tokens=200, ignore_eos=True))
    requests.add(Generate(7, endless, "the cat"), ())
    requests.abort(7)
    heard.wait_for_ends(1)
    requests.close()
    (end,) = (message for message in heard.messages if isinstance(message, (Ended, Failed)))
    assert end.request == 7
    assert runtime.loop.stats().num_running == 0


def test_nothing_is_told_after_the_end(llm: LLM) -> None:
    runtime, heard = llm._runtime, Heard()
    assert isinstance(runtime, LocalRuntime)
    requests = Requests(runtime, heard.say, beside=False)
    requests.close()
    said = len(heard.messages)
    llm.generate(PROMPTS, PARAMS)
    assert len(heard.messages) == said == 0
