from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest

from inference_pio.engine.loop import EngineLoop
from inference_pio.errors import EngineClosed, SamplingError, UsageError
from inference_pio.sampling_params import SamplingParams

PROMPT = [5, 6, 7, 8, 9]
GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
ENDLESS = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)


@pytest.fixture
def loop(fake):
    loop = EngineLoop(fake.make_engine(max_model_len=20_000, num_blocks=6000, block_size=4))
    yield loop
    loop.close()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for 10 s"
        time.sleep(0.005)


def test_many_threads_get_exact_answers(fake, loop):
    results = {}

    def consume(i):
        results[i] = fake.tokens_of(loop.submit([i + 1, *PROMPT], GREEDY))

    threads = [threading.Thread(target=consume, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: fake.greedy_reference([i + 1, *PROMPT], 20) for i in range(12)}


def test_two_coroutines_and_an_answer_count_above_one(fake, loop):
    async def consume(prompt, params):
        answers = [[] for _ in range(params.n)]
        async for update in loop.submit(prompt, params):
            answers[update.index] += update.token_ids
        return answers

    async def both():
        twice = SamplingParams(n=2, temperature=0, max_tokens=20, ignore_eos=True)
        return await asyncio.gather(consume(PROMPT, twice), consume(PROMPT[::-1], GREEDY))

    first, second = asyncio.run(both())
    assert first == [fake.greedy_reference(PROMPT, 20)] * 2
    assert second == [fake.greedy_reference(PROMPT[::-1], 20)]


def test_cancelling_frees_within_one_step(loop):
    stream = loop.submit(PROMPT, ENDLESS)
    next(stream)
    stream.cancel()
    steps = loop.stats().steps
    updates = list(stream)
    assert updates[-1].finish_reason == "abort"
    stats = loop.stats()
    # The step that was under way when it was cancelled may still finish.
    assert stats.steps <= steps + 1
    assert (stats.blocks_used, stats.num_running) == (0, 0)
    stream.cancel()
    assert list(stream) == []


@pytest.mark.parametrize("leave", ["drop", "with"])
def test_abandoned_streams_are_cancelled(loop, leave):
    if leave == "drop":
        stream = loop.submit(PROMPT, ENDLESS)
        next(stream)
        del stream
        gc.collect()
    else:
        with loop.submit(PROMPT, ENDLESS) as stream:
            next(stream)
    wait_until(lambda: loop.stats().num_running == 0)
    assert loop.stats().blocks_used == 0


def test_a_cancelled_task_and_a_closed_event_loop_leave_the_engine_usable(fake, loop):
    async def give_up():
        stream = loop.submit(PROMPT, ENDLESS)

        async def consume():
            async for _ in stream:
                pass

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consume(), 0.05)
        return stream

    stream = asyncio.run(give_up())
    stream.cancel()
    assert list(stream)[-1].finish_reason == "abort"
    assert fake.tokens_of(loop.submit(PROMPT, GREEDY)) == fake.greedy_reference(PROMPT, 20)


def test_keyboard_interrupt_in_a_consumer_leaves_the_loop_usable(fake, loop):
    def consume():
        with loop.submit(PROMPT, ENDLESS) as stream:
            for _ in stream:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert fake.tokens_of(loop.submit(PROMPT, GREEDY)) == fake.greedy_reference(PROMPT, 20)


def test_an_idle_loop_uses_no_processor_time(loop):
    list(loop.submit(PROMPT, GREEDY))
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.02


def test_bad_requests_fail_where_they_are_made_and_failing_ones_in_their_stream(fake, loop):
    with pytest.raises(SamplingError):
        loop.submit([], GREEDY)
    stream = loop.submit(PROMPT, ENDLESS, request_id="mine")
    with pytest.raises(UsageError, match="mine is running already"):
        loop.submit(PROMPT, GREEDY, request_id="mine")
    (failed,) = loop.submit([fake.NAN_TOKEN], GREEDY)
    assert "NaN" in str(failed.error)
    stream.cancel()
    list(stream)
    assert fake.tokens_of(loop.submit(PROMPT, GREEDY, request_id="mine")) == fake.greedy_reference(PROMPT, 20)


def test_the_prefix_cache_can_be_reset_between_requests(loop):
    def cached():
        return next(iter(list(loop.submit(PROMPT, GREEDY)))).num_cached_tokens

    assert (cached(), cached()) == (0, 4)
    loop.reset_prefix_cache()
    assert cached() == 0


def test_closing_fails_what_is_pending_and_everything_after(loop):
    stream = loop.submit(PROMPT, ENDLESS, request_id="r7")
    next(stream)
    loop.close()
    with pytest.raises(EngineClosed, match="request r7: the engine was closed"):
        list(stream)
    with pytest.raises(EngineClosed, match="the engine is closed"):
        loop.submit(PROMPT, GREEDY)
    with pytest.raises(EngineClosed):
        loop.reset_prefix_cache()
    loop.close()
    assert loop.stats().blocks_used == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_in_the_engine_ends_it_and_leaves_nobody_waiting(fake, monkeypatch):
    core = fake.make_engine()
    monkeypatch.setattr(core, "step", lambda: exec("raise SystemError('defect')"))
    loop = EngineLoop(core)
    with pytest.raises(EngineClosed):
        list(loop.submit(PROMPT, GREEDY))
    with pytest.raises(EngineClosed):
        loop.submit(PROMPT, GREEDY)
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_is_told_so(loop):
    stream = loop.submit(PROMPT, ENDLESS)
    child = os.fork()
    if child == 0:
        told = 0
        for use in (lambda: loop.submit(PROMPT, GREEDY), lambda: next(stream)):
            try:
                use()
            except EngineClosed:
                told += 1
        stream.cancel()
        loop.close()
        os._exit(told)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    stream.cancel()


def test_who_is_told_of_steps_finds_their_updates_and_is_told_of_the_end(fake, loop):
    arrived, threads = [], set()
    stream = loop.submit(PROMPT, GREEDY, changed=(changed := threading.Condition()))

    def told():
        threads.add(threading.current_thread().name)
        with changed:
            ready = stream.ready and not stream.exhausted
        for update in stream.take_ready() if ready else ():
            arrived.extend(update.token_ids)

    loop.after_step(told)
    wait_until(lambda: len(arrived) == 20)
    assert arrived == fake.greedy_reference(PROMPT, 20)
    assert threads == {"inference-pio-engine"}
    ends = []
    loop.after_step(lambda: ends.append(True))
    loop.close()
    assert ends
