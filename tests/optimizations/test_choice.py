"""Which techniques act: flags, words of the caller, quality and receipts, needs and conflicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from inference_pio import BaseModelConfig
from inference_pio.errors import ConfigError, UsageError
from inference_pio.optimizations import combinations
from inference_pio.optimizations.choice import check_names, choose
from inference_pio.optimizations.quality import LEVELS, Grant, no_receipt
from inference_pio.optimizations.technique import Situation, Standing, Technique, active, dormant
from inference_pio.plugin.facts import TechniqueFact
from inference_pio.plugin.runtime import RuntimeOptions


class _Made(Technique):
    category = "memory"
    shows_on = "decode"

    def __init__(self, name: str, *, exact: bool = True, **stated: Any) -> None:
        for field, value in {"name": name, "title": name, "family": name, "exact": exact, **stated}.items():
            setattr(self, field, value)
        self.stands: Standing = stated.get("stands", active("it acts"))

    def standing(self, at: Situation) -> Standing:  # noqa: ARG002
        return self.stands

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:  # noqa: ARG002
        return self.facts()


def _statuses(
    *techniques: Technique,
    options: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, tuple[str, str]]:
    chosen = choose(
        Situation(
            nn.Module(),
            BaseModelConfig(**(fields or {})),
            RuntimeOptions(**(options or {})),
            torch.device("cpu"),
            torch.float32,
            packed=False,
        ),
        more.pop("facts", ()),
        techniques={technique.name: technique for technique in techniques},
        tested=more.pop("tested", lambda *_: True),
        **more,
    )
    return {one.technique.name: (one.standing.status, one.standing.reason) for one in chosen}


def test_a_flag_that_is_off_forbids() -> None:
    made = _Made("one", flags=("use_prefix_caching",))
    assert _statuses(made) == {"one": ("active", "it acts")}
    off = _statuses(made, fields={"use_prefix_caching": False})
    assert off == {"one": ("dormant", "use_prefix_caching is off")}


def test_the_plugin_may_rule_a_family_out() -> None:
    fact = TechniqueFact("one", "memory", "not applicable", exact=True, reason="no such layers")
    assert _statuses(_Made("one"), facts=[fact]) == {"one": ("not applicable", "no such layers")}


@pytest.mark.parametrize(
    ("quality", "status", "words"),
    [
        ("exact", "dormant", "the level is exact"),
        ("faithful", "active", "it acts; KL 0.001"),
        ("fast", "active", "it acts; KL 0.001"),
    ],
)
def test_approximations_need_a_receipt_within_the_level(quality: str, status: str, words: str) -> None:
    made = _Made("one", exact=False)
    bare = _statuses(made, options={"quality": quality})["one"]
    assert bare[0] == "dormant"
    found = _statuses(made, options={"quality": quality}, grants=lambda _: Grant(True, "KL 0.001", (3,)))
    assert found["one"][0] == status
    assert words in found["one"][1]


def test_a_word_of_the_caller_outweighs_the_receipt_and_nothing_else() -> None:
    made = _Made("one", exact=False)
    assert _statuses(made, options={"enable": ("one",)})["one"][0] == "active"
    assert _statuses(made, options={"disable": ("one",)})["one"] == ("dormant", "switched off by name")
    idle = _Made("one", stands=dormant("it has nothing to do"))
    with pytest.raises(ConfigError, match="enable one: one cannot be used here: it has nothing to do"):
        _statuses(idle, options={"enable": ("one",)})


def test_conflicts_are_settled_by_words_then_by_order() -> None:
    first, second = _Made("first", conflicts=("second",)), _Made("second")
    assert _statuses(first, second) == {
        "first": ("active", "it acts"),
        "second": ("dormant", "first is at work, and they exclude each other"),
    }
    asked = _statuses(first, second, options={"enable": ("second",)})
    assert (asked["first"][0], asked["second"][0]) == ("dormant", "active")
    with pytest.raises(ConfigError, match="exclude each other; ask for one"):
        _statuses(first, second, options={"enable": ("first", "second")})


def test_what_was_not_tested_together_is_not_at_work_together() -> None:
    first, second, third = _Made("first"), _Made("second"), _Made("third")
    known = {frozenset(("first", "third"))}

    def tested(*names: str) -> bool:
        return frozenset(names) in known

    def stands(**options: Any) -> dict[str, str]:
        found = _statuses(first, second, third, options=options, tested=tested)
        return {name: status for name, (status, _) in found.items()}

    assert stands() == {"first": "active", "second": "dormant", "third": "active"}
    assert stands(enable=("second",)) == {"first": "dormant", "second": "active", "third": "dormant"}
    assert set(stands(allow_untested=True).values()) == {"active"}
    assert set(stands(enable=("first", "second"), allow_untested=True).values()) == {"active"}
    with pytest.raises(ConfigError, match="enable second: second and first have not been tested together"):
        stands(enable=("first", "second"))
    reason = _statuses(first, second, tested=tested)["second"][1]
    assert reason == "first is at work, and they have not been tested together (allow_untested)"


def test_techniques_that_nobody_knows_are_untested() -> None:
    with pytest.raises(
        ConfigError, match="kv_int8 and theirs have not been tested together|theirs and kv_int8"
    ):
        _statuses(
            _Made("theirs"),
            _Made("kv_int8"),
            options={"enable": ("theirs", "kv_int8")},
            tested=combinations.tested,
        )


def test_what_is_needed_must_be_at_work() -> None:
    base, on_top = _Made("base"), _Made("on_top", needs=("base",))
    assert _statuses(base, on_top)["on_top"][0] == "active"
    without = _statuses(base, on_top, options={"disable": ("base",)})
    assert without["on_top"] == ("dormant", "it needs base")
    with pytest.raises(ConfigError, match="on_top needs base, which is not at work"):
        _statuses(base, on_top, options={"enable": ("on_top",), "disable": ("base",)})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"enable": ("prefix_cachin",)},
            "there is no technique 'prefix_cachin'; did you mean prefix_caching",
        ),
        ({"disable": ("warp",)}, "there is no technique 'warp'; techniques: flash_attention"),
        ({"enable": ("kv_int8",), "disable": ("kv_int8",)}, "kv_int8 cannot be enabled and disabled at once"),
    ],
)
def test_wrong_names_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_names(RuntimeOptions(**options))


def test_levels() -> None:
    assert [level.name for level in LEVELS.values()] == ["exact", "faithful", "fast"]
    faithful = LEVELS["faithful"]
    assert faithful.keeps(0.01, 0.95)
    assert not faithful.keeps(float("nan"), 1.0)
    assert faithful.violation(0.02, 1.0) == "KL 0.02 > 0.01 of level faithful"
    assert faithful.violation(0.0, 0.9) == "top-1 agreement 0.900 < 0.95 of level faithful"
    assert faithful.violation(0.01, 0.95) == ""
    assert not no_receipt("any").allowed
