"""The engine's counters: what requests took adds up to what the steps took."""

from __future__ import annotations

import math
import time

import pytest

from inference_pio.sampling_params import SamplingParams


class FakeMeter:
    """Counts `watts` by the clock; every reading is noted."""

    covers, available, reason = "fake", True, ""

    def __init__(self, watts: float = 40.0) -> None:
        self.watts, self.readings, self.broken = watts, [], False

    def read(self) -> float:
        if self.broken:
            raise PermissionError("energy_uj")
        self.readings.append(time.perf_counter())
        return self.readings[-1]

    def joules(self, start: float, end: float) -> float:
        return self.watts * (end - start)


def greedy(count: int, **more) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, **more)


def watch(engine, meter=None):
    """The usage of each request that is added from now on, by its name."""
    if meter is not None:
        engine._ledger.__init__(meter)
    usages, add = {}, engine.add_request

    def adding(name, *args, **more):
        add(name, *args, **more)
        usages[name] = engine._requests[name].usage

    engine.add_request = adding
    return usages


def test_tokens_and_seconds_of_requests_add_up_to_those_of_steps(fake):
    engine = fake.make_engine(num_blocks=24)  # too few for all: some are computed again
    usages = watch(engine)
    for number in range(6):
        engine.add_request(str(number), [number + 1] * 13, greedy(20, n=1 + number % 3))
    before = time.perf_counter()
    updates = fake.run(engine)
    wall = time.perf_counter() - before
    work = engine.stats().work
    generated = sum(len(fake.tokens_of(parts)) for parts in updates.values())
    assert generated == engine.stats().generation_tokens == 20 * 12
    assert engine.stats().preemptions > 0
    assert sum(usage.computed_tokens for usage in usages.values()) == work.step_tokens
    assert math.isclose(sum(usage.step_seconds for usage in usages.values()), work.step_seconds)
    assert 0 < work.step_seconds <= wall
    assert work.steps <= work.step_sequences <= work.step_tokens
    assert work.requests_started == work.requests_answering == work.requests_finished == 6
    assert work.requests_aborted == work.requests_failed == 0
    assert work.step_blocks <= 24 * work.steps


def test_cached_tokens_are_not_computed_and_drafts_are_counted(fake):
    prompt = [7, 8] * 6 + [7]
    engine = fake.make_engine("repeating", speculation=4)
    usages = watch(engine)
    engine.add_request("first", prompt, greedy(45))
    fake.run(engine)
    engine.add_request("again", prompt, greedy(1))
    fake.run(engine)
    stats = engine.stats()
    assert usages["again"].computed_tokens == len(prompt) - 12  # three blocks of four were there
    assert usages["first"].drafts == stats.draft_tokens > 0
    assert usages["first"].accepted_drafts == stats.accepted_draft_tokens > 0
    # Of 45 tokens the last is not computed; every accepted draft came with the step of another token.
    assert usages["first"].computed_tokens == len(prompt) + 44 - stats.accepted_draft_tokens


def test_what_went_on_meanwhile_is_of_the_requests_own_steps(fake):
    engine = fake.make_engine()
    usages = watch(engine)
    engine.add_request("alone", [1, 2, 3], greedy(5))
    fake.run(engine)
    engine.add_request("one", [4, 2, 3], greedy(8))
    engine.add_request("other", [5, 2, 3], greedy(8))
    fake.run(engine)
    for name, sequences in (("alone", 1), ("one", 2), ("other", 2)):
        before, after = usages[name].meanwhile
        steps = after.steps - before.steps
        assert steps == (5 if name == "alone" else 8)
        assert after.step_sequences - before.step_sequences == sequences * steps
        assert usages[name].blocks == (2 if name == "alone" else 3)
    assert usages["one"].meanwhile[1].steps == engine.stats().steps  # its last step is among them


def test_ends_are_told_apart(fake):
    engine = fake.make_engine()
    usages = watch(engine)
    engine.add_request("never", [1] * 5, greedy(5))
    engine.abort("never")
    engine.add_request("aborted", [2] * 5, greedy(40))
    engine.step()
    engine.abort("aborted")
    fake.run(engine)
    engine.add_request("failed", [fake.CRASH_TOKEN], greedy(4))
    engine.add_request("no number", [fake.NAN_TOKEN], greedy(4))
    fake.run(engine)
    work = engine.stats().work
    assert (work.requests_aborted, work.requests_failed, work.requests_finished) == (2, 2, 0)
    assert usages["never"].meanwhile is None
    assert usages["never"].started is None
    assert usages["failed"].first_token_at is None
    assert usages["aborted"].first_token_at is not None
    assert usages["aborted"].blocks == 2
    assert all(usage.closed for usage in usages.values())


def test_waiting_is_from_arrival_to_the_first_step(fake):
    engine = fake.make_engine(max_num_seqs=1)
    usages = watch(engine)
    now = time.perf_counter()
    engine.add_request("first", [1, 2], greedy(3), arrived=now - 2)
    engine.add_request("second", [3, 2], greedy(3), arrived=now - 5)
    fake.run(engine)
    assert 2 <= usages["first"].started - usages["first"].arrived < 3
    assert 5 <= usages["second"].started - usages["second"].arrived < 6
    work = engine.stats().work
    assert 7 <= work.queue_seconds <= work.first_token_seconds <= work.request_seconds < 9


def slowly(engine, seconds: float) -> None:
    while engine.has_work:
        time.sleep(seconds)
        engine.step()


@pytest.mark.parametrize("idle", [0.0, 0.3])
def test_joules_are_shared_by_tokens_and_the_meter_is_seldom_read(fake, idle):
    meter, engine = FakeMeter(), fake.make_engine()
    usages = watch(engine, meter)
    engine.step()
    time.sleep(idle)
    engine.add_request("one", [1, 2, 3], greedy(40))
    engine.add_request("two", [4, 5, 6], greedy(40, n=2))
    began = time.perf_counter()
    slowly(engine, 0.01)
    wall = time.perf_counter() - began
    work = engine.stats().work
    assert len(meter.readings) <= 2 + wall / 0.1
    assert all(b - a >= 0.0999 for a, b in zip(meter.readings, meter.readings[1:], strict=False))
    assert 0.5 * wall < work.metered_seconds <= wall  # nothing of the idle time before
    assert math.isclose(work.joules, meter.watts * work.metered_seconds, rel_tol=1e-3)
    assert math.isclose(sum(usage.joules for usage in usages.values()), work.joules)
    assert math.isclose(usages["two"].joules / usages["one"].joules, 2, rel_tol=0.15)
    assert usages["one"].metered_seconds == work.metered_seconds


def test_what_the_meter_cannot_tell_is_not_counted(fake):
    for broken in (False, True):
        meter, engine = FakeMeter(math.nan), fake.make_engine()
        usages = watch(engine, meter)
        meter.broken = broken
        engine.add_request("one", [1, 2, 3], greedy(20))
        slowly(engine, 0.015)
        assert usages["one"].metered_seconds == engine.stats().work.metered_seconds == 0
