"""A supervisor against workers that die, lie and hang: every request ends exactly once, with the tokens it would have
had.
"""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference_pio.children.frames import ProtocolError
from inference_pio.errors import ConfigError, PluginError, ResourceError
from inference_pio.outputs import Logprob, RequestMetrics
from inference_pio.security.confine import Lock
from inference_pio.worker.messages import (
    Abort,
    Answered,
    Close,
    Ended,
    Failed,
    Generate,
    Hello,
    Load,
    Loaded,
    Piece,
    Pieces,
    Planned,
    Progress,
)
from inference_pio.worker.roles import State
from support.pretended_worker import KILLED, SEGV, VOCAB, Caller, World, expected, request


@pytest.fixture
def world() -> World:
    made = World()
    made.start()
    return made


def test_requests_wait_for_the_worker_and_are_answered() -> None:
    world = World()
    world.supervisor.start()
    flight, caller = request(1, answers=2)
    world.supervisor.submit(flight, world.now)
    assert not world.running
    world.supervisor.go()
    world.come_up()
    for _ in range(5):
        world.step()
    assert (caller.answers, caller.ends) == (expected(1, answers=2), 1)


def test_a_plan_is_not_loaded_before_it_is_asked_for() -> None:
    world = World()
    world.supervisor.start()
    world.hear(Hello(()))
    world.hear(Planned({}))
    assert world.supervisor.state is State.PLANNED
    with pytest.raises(ProtocolError, match="Hello"):
        world.hear(Hello(()))


@pytest.mark.parametrize("at", range(6))
def test_three_kills_lose_no_token_and_repeat_none(world: World, at: int) -> None:
    callers = {number: request(number, answers=1 + number % 2, length=9) for number in range(8)}
    for flight, _ in callers.values():
        world.supervisor.submit(flight, world.now)
    for kill in range(3):
        for _ in range((at + kill) % 3):
            world.step()
        world.die(KILLED)
        world.again()
    for _ in range(9):
        world.step()
    for number, (_, caller) in callers.items():
        assert caller.answers == expected(number, answers=1 + number % 2, length=9)
        assert caller.ends == 1


def test_answers_that_are_whole_are_not_asked_for_again(world: World) -> None:
    flight, caller = request(1, answers=2, length=3)
    world.supervisor.submit(flight, world.now)
    asked = world.running[1]
    world.hear(Pieces([Piece(1, 0, 0, expected(1, answers=2, length=3)[0], "", "length")]))
    world.die(KILLED)
    world.again()
    assert world.running[1].done == [None, []]
    assert world.running[1].params == asked.params
    for _ in range(3):
        world.step()
    assert caller.answers == expected(1, answers=2, length=3)


def test_a_poison_request_is_found_and_the_others_go_on(world: World) -> None:
    flights = {number: request(number) for number in range(6)}
    for flight, _ in flights.values():
        world.supervisor.submit(flight, world.now)
    crashes = 0
    while not all(caller.over for _, caller in flights.values()):
        if 4 in world.running:
            crashes += 1
            world.die(SEGV)
            world.again()
        else:
            world.step()
    assert crashes == 3  # two that it shares, one alone
    assert "request 4" in str(flights.pop(4)[1].error)
    for number, (_, caller) in flights.items():
        assert caller.answers == expected(number)


def test_a_request_that_came_alone_gets_a_second_chance(world: World) -> None:
    flight, caller = request(1)
    world.supervisor.submit(flight, world.now)
    world.die(SEGV)
    assert caller.error is None
    world.again()
    world.die(SEGV)
    assert "SIGSEGV" in str(caller.error)


def test_nobody_is_blamed_for_a_kill_from_outside(world: World) -> None:
    flight, caller = request(1)
    world.supervisor.submit(flight, world.now)
    for _ in range(3):
        world.die(KILLED)
        world.again()
    for _ in range(5):
        world.step()
    assert caller.answers == expected(1)


def test_a_worker_that_ends_too_often_is_given_up(world: World) -> None:
    flight, caller = request(1, length=50)
    world.supervisor.submit(flight, world.now)
    waits = []
    for _ in range(4):
        world.die(KILLED)
        waits.append(world.deaths[-1][1])
        world.again()
    world.die(KILLED)
    assert waits == [0, 1, 2, 4]
    assert world.supervisor.state is State.BROKEN
    assert isinstance(caller.error, PluginError)
    with pytest.raises(PluginError, match="broken"):
        world.supervisor.submit(request(2)[0], world.now)


def test_what_keeps_it_from_loading_is_the_requests_error_too() -> None:
    world = World()
    world.supervisor.start()
    flight, caller = request(1)
    world.supervisor.submit(flight, world.now)
    world.hear(Hello(()))
    world.hear(Failed("ResourceError", "it does not fit"))
    assert isinstance(caller.error, ResourceError)
    assert [str(error) for error in world.errors] == ["it does not fit"]


def test_an_error_of_one_request_is_its_own(world: World) -> None:
    first, second = request(1), request(2)
    world.supervisor.submit(first[0], world.now)
    world.supervisor.submit(second[0], world.now)
    world.running.pop(1)
    world.hear(Failed("ConfigError", "no", request=1))
    for _ in range(5):
        world.step()
    assert isinstance(first[1].error, ConfigError)
    assert second[1].answers == expected(2)


def test_giving_up_a_request_tells_the_worker(world: World) -> None:
    flight, caller = request(1)
    world.supervisor.submit(flight, world.now)
    world.supervisor.abort(1)
    assert world.sent[-1] == Abort(1)
    world.hear(Pieces([Piece(1, 0, 0, [3], "")]))  # was on its way
    world.supervisor.abort(1)
    assert caller.answers == [[]]


def test_silence_with_work_is_a_crash(world: World) -> None:
    """That it answers is no sign of life: only steps are."""
    world.supervisor.submit(request(1, length=60)[0], world.now)
    for _ in range(40):
        world.now += 0.25
        world.step()
        world.supervisor.tick(world.now)
        world.pong(busy=True)
    while not world.verdict and world.now < 60:
        world.now += 1
        world.supervisor.tick(world.now)
        world.pong(busy=True)
    assert world.verdict == "no step in 11 s, with work to do"
    assert world.now == 21


def test_steps_are_what_shows_life(world: World) -> None:
    world.supervisor.submit(request(1, length=60)[0], world.now)
    for _ in range(40):
        world.now += 1
        world.step()
        world.supervisor.tick(world.now)
        world.pong(busy=True)
    assert not world.verdict


def test_a_step_of_many_tokens_may_take_its_time(world: World) -> None:
    """Nobody knows the first one; later ones are judged by what tokens have taken."""
    flight, _ = request(1, length=200)
    world.supervisor.submit(flight, world.now)
    for _ in range(250):
        world.now += 1
        world.supervisor.tick(world.now)
        world.pong(busy=True)
    world.step()  # 250 s for a token
    for _ in range(100):
        world.now += 0.25
        world.step()
        world.supervisor.tick(world.now)
        world.pong(busy=True)
    world.under_way = 512
    for _ in range(250):
        world.now += 1
        world.supervisor.tick(world.now)
        world.pong(busy=True)
    assert not world.verdict
    for _ in range(60):
        world.now += 1
        world.supervisor.tick(world.now)
    assert world.verdict == "no step in 301 s, with work to do"


@pytest.mark.parametrize("planned", [False, True], ids=["planning", "loading"])
def test_a_start_that_says_nothing_is_ended(planned: bool) -> None:
    world = World()
    world.supervisor.start()
    if planned:
        world.supervisor.go()
        world.hear(Hello(()))
        world.hear(Planned({}))
    for _ in range(250):
        world.now += 1
        world.supervisor.tick(world.now)
    world.hear(Progress(1, 2, "weights"))  # it gets on, and may take its time
    for _ in range(250):
        world.now += 1
        world.supervisor.tick(world.now)
    assert not world.verdict
    for _ in range(60):
        world.now += 1
        world.supervisor.tick(world.now)
    assert world.verdict == "no word in 301 s while it was to start"


def test_a_plan_that_nobody_wants_loaded_may_wait() -> None:
    world = World()
    world.supervisor.start()
    world.hear(Hello(()))
    world.hear(Planned({}))
    for _ in range(1000):
        world.now += 1
        world.supervisor.tick(world.now)
    assert not world.verdict
    world.supervisor.go()
    world.now += 1
    world.supervisor.tick(world.now)
    assert not world.verdict


def test_what_ended_a_worker_alone_is_refused_for_ten_minutes(world: World) -> None:
    """The same prompt with the same parameters, whatever its seed; nothing else."""
    ended = _end_a_worker_with(world, 1)
    again, refused = request(1)
    again.asked.params["seed"] = 77
    for later in (0.0, 599.0):
        world.supervisor.submit(again, ended + later)
        assert "is refused for another" in str(refused.error)
        assert f" {600 - later:.0f} s" in str(refused.error)
        again, refused = request(1)
    others = [request(2), request(1, length=6), request(1, answers=2)]
    for flight, _ in others:
        flight.asked = msgspec.structs.replace(flight.asked, request=100 + len(world.running))
        world.supervisor.submit(flight, ended)
    assert all(caller.error is None for _, caller in others)
    assert len(world.running) == 3
    late, served = request(1)
    world.supervisor.submit(late, ended + 600.0)
    assert served.error is None
    assert len(world.running) == 4


def test_a_request_that_others_ended_is_refused_by_nobody(world: World) -> None:
    flight, caller = request(1)
    world.supervisor.submit(flight, world.now)
    for _ in range(2):
        world.die(KILLED)
        world.again()
    for _ in range(5):
        world.step()
    assert caller.ends == 1
    again, served = request(1)
    world.supervisor.submit(again, world.now)
    assert served.error is None


def _end_a_worker_with(world: World, number: int) -> float:
    """When."""
    flight, caller = request(number)
    world.supervisor.submit(flight, world.now)
    while True:
        world.die(SEGV)
        ended = world.now
        world.again()
        if caller.error is not None:
            return ended


def test_an_idle_worker_may_be_silent(world: World) -> None:
    for _ in range(40):
        world.now += 1
        world.supervisor.tick(world.now)
    assert not world.verdict


def as_it_is(value: object, _: int) -> object:
    """Reads any answer."""
    return value


def test_a_question_goes_to_the_next_worker_and_dies_with_that(world: World) -> None:
    put: list[int] = []
    world.supervisor.ask(7, lambda: put.append(7), as_it_is)
    world.die(SEGV)
    world.supervisor.ask(8, lambda: put.append(8), as_it_is)  # waits
    assert (put, world.errors) == ([7], [])
    world.again()
    assert put == [7, 7, 8]
    world.die(SEGV)
    assert "SIGSEGV" in str(world.errors[-1])
    assert len(world.errors) == 1  # the other one has had one worker only
    world.again()
    assert put == [7, 7, 8, 8]
    world.supervisor.hear(Answered(8), world.now)
    with pytest.raises(ProtocolError, match="question 7, which was not put"):
        world.supervisor.hear(Answered(7), world.now)


def test_no_question_waits_for_a_worker_that_never_comes(world: World) -> None:
    world.die(SEGV)
    world.supervisor.ask(8, lambda: None, as_it_is)
    world.supervisor.give_up(PluginError("no more"))
    assert str(world.errors[-1]) == "no more"
    with pytest.raises(PluginError, match="no more"):
        world.supervisor.ask(9, lambda: None, as_it_is)


LIES = {
    "a token twice": Pieces([Piece(1, 0, 0, [1], ""), Piece(1, 0, 0, [1], "")]),
    "a token left out": Pieces([Piece(1, 0, 1, [1], "")]),
    "a token that is none": Pieces([Piece(1, 0, 0, [VOCAB], "")]),
    "a negative token": Pieces([Piece(1, 0, 0, [-1], "")]),
    "more than asked for": Pieces([Piece(1, 0, 0, [1] * 6, "")]),
    "an answer nobody asked for": Pieces([Piece(1, 1, 0, [1], "")]),
    "an answer before the first": Pieces([Piece(1, -1, 0, [1], "")]),
    "more behind the end": Pieces([Piece(1, 0, 0, [1], "", "stop"), Piece(1, 0, 1, [1], "")]),
    "an end with an open answer": Ended(1, RequestMetrics(0.0, 0.0, 0)),
    "an answer to no question": Answered(99),
    "a refusal of no question": Failed("ConfigError", "x", number=99),
    "a plan again": Planned({}),
    "loaded again": Loaded(VOCAB, 1, False),
    "hello again": Hello(()),
    "scores of another token": Pieces([Piece(1, 0, 0, [1], "", logprobs=[{2: Logprob(-1.0, 1)}])]),
    "scores of more tokens": Pieces([Piece(1, 0, 0, [1], "", logprobs=[{1: Logprob(-1.0, 1)}] * 2)]),
    "a score that is no number": Pieces([Piece(1, 0, 0, [1], "", logprobs=[{1: Logprob(math.nan, 1)}])]),
    "an error there is not": Failed("SystemExit", "x", request=1),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_lies_is_found_out(world: World, lie: str) -> None:
    world.supervisor.submit(request(1)[0], world.now)
    with pytest.raises(ProtocolError):
        world.hear(LIES[lie])


def test_word_of_a_request_that_it_does_not_have(world: World) -> None:
    """A worker that was started again, and has yet to be given what is open."""
    world.supervisor.submit(request(1)[0], world.now)
    world.die(KILLED)
    world.supervisor.start()
    with pytest.raises(ProtocolError, match="word of request 1, which it has not been given"):
        world.hear(Pieces([Piece(1, 0, 0, [1], "")]))
    with pytest.raises(ProtocolError, match="word of request 1, which it has not been given"):
        world.hear(Ended(1, RequestMetrics(0.0, 0.0, 0)))


FILES, PRIVILEGES = Lock("files", "set"), Lock("privileges", "partly set", ("it is root",))
LESS = {
    "nothing": ((), "files: missing, not a word of it"),
    "one of two": ((FILES,), "privileges: missing, not a word of it"),
    "one that failed": ((Lock("files", "missing", ("no\nroom",)), PRIVILEGES), "files: missing, no\\nroom"),
    "one in part": (
        (Lock("files", "partly set", ("TCP is open",)), PRIVILEGES),
        "files: partly set, TCP is open",
    ),
    "one of whole words": ((Lock("files", "set", ("TCP is open",)), PRIVILEGES), "files: set, TCP is open"),
    "more gaps": (
        (FILES, Lock("privileges", "partly set", ("it is root", "it may mount"))),
        "privileges: partly set, it may mount",
    ),
}


@pytest.mark.parametrize("case", LESS)
def test_a_worker_that_is_held_by_less_than_was_proved_is_given_nothing(case: str) -> None:
    told, why = LESS[case]
    world = World(proved=(FILES, PRIVILEGES))
    world.supervisor.start()
    world.hear(Hello(told))
    assert world.verdict == f"it is not locked in as was proved here: {why}"
    assert world.sent == []


def test_a_worker_may_be_held_by_more_than_was_proved() -> None:
    world = World(proved=(FILES, PRIVILEGES, Lock("system calls", "missing", ("no filters",))))
    world.supervisor.start()
    world.hear(Hello((Lock("privileges", "set"), FILES, Lock("processors", "missing", ("no",)))))
    assert not world.verdict
    assert [type(message) for message in world.sent] == [Load]


class Weather(RuleBasedStateMachine):
    """Requests come and go while workers die of this and that."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.start()
        self.callers: dict[int, tuple[Caller, int, int]] = {}
        self.given_up: set[int] = set()
        self.next = 1

    @rule(answers=st.integers(1, 3), length=st.integers(1, 6))
    def submit(self, answers: int, length: int) -> None:
        flight, caller = request(self.next, answers=answers, length=length)
        self.callers[self.next] = (caller, answers, length)
        self.next += 1
        self.world.supervisor.submit(flight, self.world.now)

    @precondition(lambda self: self.world.running)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.world.step(data.draw(st.sampled_from([None, *self.world.running])))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.world.running)))
        self.given_up.add(number)
        self.world.supervisor.abort(number)

    @precondition(lambda self: self.world.alive)
    @rule(death=st.sampled_from([KILLED, SEGV]))
    def die(self, death: object) -> None:
        self.world.now += 400  # crashes are rare enough for it to be started again
        self.world.die(death)  # type: ignore[arg-type]
        self.world.again()

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """While there is a worker and requests are open, one of them runs."""
        if len(self.world.supervisor.flights):
            assert self.world.running

    def teardown(self) -> None:
        for _ in range(200):
            self.world.step()
        for number, (caller, answers, length) in self.callers.items():
            wanted = expected(number, answers=answers, length=length)
            if number in self.given_up or caller.error is not None:
                told = zip(caller.answers, wanted, strict=True)
                assert all(had == want[: len(had)] for had, want in told)
            else:
                assert (caller.answers, caller.ends) == (wanted, 1)


Weather.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWeather = Weather.TestCase


def test_a_seed_is_always_sent(world: World) -> None:
    """Without one another worker would draw other numbers."""
    world.supervisor.submit(request(1)[0], world.now)
    sent = [message for message in world.sent if isinstance(message, Generate)]
    assert all(isinstance(message.params["seed"], int) for message in sent)


def test_another_way_of_running_comes_with_another_worker(world: World) -> None:
    flight, caller = request(1, answers=1)
    world.supervisor.submit(flight, world.now)
    load = Load("m", None, {}, {"fit": True}, None, False, 1.0, None)
    with pytest.raises(PluginError, match="busy with 1 requests"):
        world.supervisor.change(load)
    while not caller.over:
        world.step()
    world.supervisor.change(load)
    assert isinstance(world.sent[-1], Close)
    with pytest.raises(PluginError, match="about to run it otherwise"):
        world.supervisor.change(load)
    later, waiting = request(2, answers=1)
    world.supervisor.submit(later, world.now)
    assert not world.running
    world.die(KILLED)
    assert world.deaths == []
    world.come_up()
    assert load in world.sent
    while not waiting.over:
        world.step()
    assert (waiting.answers, waiting.error) == (expected(2, answers=1), None)
