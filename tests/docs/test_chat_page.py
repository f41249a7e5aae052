"""What docs/chat.md shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from inference_pio.plugin.facts import CallSyntax
from inference_pio.text.answer import MAX_CALL

PAGE = (Path(__file__).parents[2] / "docs" / "chat.md").read_text()


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.usefixtures("qwen2_coder_path")
def test_the_example_prints_what_is_shown() -> None:
    pytest.importorskip("inference_pio.models.qwen2")
    ((code, shown),) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == shown


def test_every_syntax_is_on_the_page() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(get_args(CallSyntax))
    assert f"{MAX_CALL:,} characters" in PAGE
