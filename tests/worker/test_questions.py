"""Questions to a worker: who asks may be cancelled, and an answer is what it has to be or the end of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from inference_pio.children.frames import ProtocolError
from inference_pio.config import BaseModelConfig
from inference_pio.errors import PluginError, ResourceError
from inference_pio.worker.answers import ANSWERS, Encoded, Written, checked_answer
from inference_pio.worker.as_data import with_figures
from inference_pio.worker.death import Death
from inference_pio.worker.messages import Answered, Ask, Failed, Hello, Loaded, Planned
from inference_pio.worker.model import WorkerModel
from inference_pio.worker.questions import QUESTIONS
from inference_pio.worker.roles import State
from support.faulty_models import worker

VOCAB = 50
FIGURES = {"bytes": 1, "seconds": 0.5}
PICTURES = [{"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": "x"}]}]
PLACE = "messages[0].content[0]"


def without_a_process(home: Path) -> WorkerModel:
    """Up to a model that is loaded; what it says goes nowhere, and a test says what it hears."""
    model = worker(home)
    model._supervisor.go()
    for message in (Hello(()), Planned({}), Loaded(VOCAB, 10, False)):
        model._heard(message)
    return model


async def cancelled(model: WorkerModel, meanwhile: Callable[[int], None]) -> int:
    """A question that was put and given up; `meanwhile` is called with its number before its task knows of it."""
    task = asyncio.ensure_future(model.ask("memory"))
    await asyncio.sleep(0)
    (number,) = model._questions
    task.cancel()
    meanwhile(number)
    with pytest.raises(asyncio.CancelledError):
        await task
    return number


def nothing(_: int) -> None: ...


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("refused", [True, False])
def test_what_comes_of_a_cancelled_question_is_dropped(tmp_path: Path, at_once: bool, refused: bool) -> None:
    async def scene() -> None:
        model = without_a_process(tmp_path)

        def hear(number: int) -> None:
            answer = Failed("ConfigError", "x", number=number) if refused else Answered(number, FIGURES)
            model._heard(answer)

        number = await cancelled(model, hear if at_once else nothing)
        if not at_once:
            hear(number)
        with pytest.raises(ProtocolError, match="which was not put"):  # twice
            hear(number)
        assert not model._questions

    asyncio.run(scene())


def test_no_other_worker_is_asked_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        model = without_a_process(tmp_path)
        said: list[object] = []
        monkeypatch.setattr(model, "say", said.append)
        monkeypatch.setattr(model, "start_in", lambda _: None)
        await cancelled(model, nothing)
        said.clear()
        model._died(Death(-11))
        await cancelled(model, nothing)  # one that waits for the next
        model._supervisor.state = State.STARTING
        for message in (Hello(()), Planned({}), Loaded(VOCAB, 10, False)):
            model._heard(message)
        assert not [message for message in said if isinstance(message, Ask)]

    asyncio.run(scene())


def test_a_close_tells_everybody_who_waits_and_nothing_that_comes_then_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no worker, whose end would tell them."""

    async def scene() -> None:
        planning, asked = worker(tmp_path), without_a_process(tmp_path)
        monkeypatch.setattr(planning, "spawn", lambda: None)
        monkeypatch.setattr(asked, "start_in", lambda _: None)
        put = asyncio.ensure_future(asked.ask("compute"))
        await asyncio.sleep(0)
        asked._died(Death(-11))
        waiting = [put, asyncio.ensure_future(asked.ask("memory")), asyncio.ensure_future(planning.plan())]
        await asyncio.sleep(0)
        for model in (planning, asked):
            await model.close()
            model._heard(Answered(99, FIGURES))
        for each in waiting:
            with pytest.raises(PluginError, match="the model was closed"):
                await asyncio.wait_for(each, 1)

    asyncio.run(scene())


def test_who_waits_for_a_plan_may_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        model, started = worker(tmp_path), []
        monkeypatch.setattr(model, "spawn", lambda: started.append(1))
        for wait in (model.plan, model.load):
            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if wait == model.plan:
                model._heard(Hello(()))
                model._heard(Planned({"vocab_size": 7}))
        assert (await model.plan()).config == {"vocab_size": 7}
        model._heard(Failed("ResourceError", "no room"))
        with pytest.raises(ResourceError, match="no room"):
            await model.load()
        assert started == [1]
        await model.close()

    asyncio.run(scene())


def test_every_question_has_an_answer() -> None:
    assert set(ANSWERS) == set(QUESTIONS) == set(get_args(get_type_hints(Ask)["about"]))


GIVEN_BACK = {
    "process_bytes_before": 2,
    "process_bytes_after": 1,
    "applied": [{"technique": "t", "reason": "r", "bytes_before": 2, "bytes_after": 1}],
    "before": {"weights": 1, "sum": "1 GB"},
    "after": {"weights": 1, "sum": "1 GB"},
    "fits": True,
}
GOOD: list[tuple[str, Any, Any]] = [
    ("tokenize", [0, VOCAB - 1], [0, VOCAB - 1]),
    ("tokenize", [], []),
    ("detokenize", "x", "x"),
    ("encode", {"text": None, "token_ids": [1]}, Encoded(None, [1])),
    ("memory", FIGURES, FIGURES),
    ("optimize", GIVEN_BACK, GIVEN_BACK),
]
BAD: list[tuple[str, Any]] = [
    ("tokenize", None),
    ("tokenize", "12"),
    ("tokenize", [1, "2"]),
    ("tokenize", [True]),
    ("tokenize", [1.5]),
    ("tokenize", [-1]),
    ("tokenize", [VOCAB]),
    ("tokenize", [2**63]),
    ("detokenize", [1]),
    ("detokenize", b"x"),
    ("write", {"source": "x"}),
    ("write", {"source": "x", "values": {}, "path": "p", "images": [], "more": 1}),
    ("write", {"source": 1, "values": {}, "path": "p", "images": []}),
    ("write", {"source": "x", "values": {1: 2}, "path": "p", "images": []}),
    ("write", {"source": "x", "values": {}, "path": "p", "images": ["messages[0].content[1]"]}),
    ("write", {"source": "x", "values": {}, "path": "p", "images": [PLACE, PLACE]}),
    ("encode", {"text": "x", "token_ids": [VOCAB]}),
    ("encode", {"text": 1, "token_ids": []}),
    ("encode", []),
    ("memory", {"bytes": "1"}),
    ("compute", [1.0]),
    ("disk", {1: 1}),
    ("performance", {"latency_ms": "fast"}),
    ("performance", {"resource_utilization": {"cpu": None}}),
    ("techniques", {}),
    ("techniques", ["x"]),
    ("optimize", "done"),
    ("optimize", {"process_bytes_before": 1, "process_bytes_after": 1}),
    ("fit", None),
    ("fit", {"fits": "yes"}),
    ("fit", {"applied": [{"technique": "paging"}]}),
    ("fit", {"after": {"weights": {}}}),
]


@pytest.mark.parametrize(("about", "value", "told"), GOOD)
def test_an_answer_is_what_it_was(about: str, value: Any, told: Any) -> None:
    found = checked_answer(about, {}, value, VOCAB)
    assert (found, type(found)) == (told, type(told))


@pytest.mark.parametrize(("about", "value"), BAD)
def test_what_is_no_answer(about: str, value: Any) -> None:
    with pytest.raises(ProtocolError):
        checked_answer(about, {"messages": PICTURES}, value, VOCAB)


def test_a_configuration_takes_what_is_of_its_kind() -> None:
    config = BaseModelConfig(hidden_size=1)
    told = with_figures(config, {"hidden_size": 8, "model_name": "m", "use_cache": False, "what is that": 1})
    assert (told.hidden_size, told.model_name, told.use_cache) == (8, "m", False)
    for lie in ({"hidden_size": "8"}, {"model_name": 8}, {"use_cache": 1}, {"hidden_size": True}):
        with pytest.raises(PluginError, match="^the worker says .* which is no (number|word|switch)$"):
            with_figures(config, lie)


def test_places_of_images() -> None:
    written = Written("x", {}, "p", [PLACE])
    value = {"source": "x", "values": {}, "path": "p", "images": [PLACE]}
    assert checked_answer("write", {"messages": PICTURES}, value, VOCAB) == written
