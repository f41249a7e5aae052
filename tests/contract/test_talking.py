"""C14 notices a chat format that says something else than the templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from inference_pio.conformance import talking
from inference_pio.conformance.subject import Subject
from inference_pio.plugin.facts import ReasoningFormat

Check = Callable[[Subject], None]
ANSWERS, TURNS, SYSTEM = (
    talking.check_answers_are_read,
    talking.check_earlier_turns,
    talking.check_system_role,
)


@pytest.mark.parametrize(
    ("name", "check", "wrong", "message"),
    [
        ("qwen3", ANSWERS, {"tool_calls": ()}, "no syntax of chat_format.tool_calls"),
        ("qwen3", ANSWERS, {"reasoning": None}, "states no markers that it knows"),
        ("qwen3", ANSWERS, {"reasoning": ReasoningFormat("<reason>")}, "the thoughts read are None"),
        ("qwen3_moe", ANSWERS, {"tool_calls": ("hermes_json",)}, "the calls read are"),
        ("glm4_moe_lite", ANSWERS, {"tool_calls": ("hermes_json",)}, "the calls read are"),
        ("qwen3", TURNS, {"reasoning": ReasoningFormat(dropped=False)}, "dropped=False of earlier thoughts"),
        (
            "qwen3",
            TURNS,
            {"reasoning": ReasoningFormat(kept_with={"keep": True})},
            "does not begin with the last turn",
        ),
        ("qwen3", SYSTEM, {"system_role": False}, "the format says system_role=False"),
    ],
)
def test_a_wrong_format_fails(
    name: str,
    check: Check,
    wrong: dict[str, Any],
    message: str,
    subject_of: Callable[[str], Subject],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(f"inference_pio.models.{name}")
    subject = subject_of(name)
    plugin = type(subject.plugin())
    right = plugin.chat_format
    check(subject)
    monkeypatch.setattr(plugin, "chat_format", lambda self, config: replace(right(self, config), **wrong))
    with pytest.raises(AssertionError, match=message):
        check(subject)
