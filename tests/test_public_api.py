"""The package's public names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import inference_pio


def test_all_is_what_can_be_imported() -> None:
    assert list(inference_pio.__all__) == sorted(inference_pio.__all__, key=_capitals_first)
    for name in inference_pio.__all__:
        assert getattr(inference_pio, name).__name__ == name
    assert set(inference_pio.__all__) == set(inference_pio._MODULES)
    assert set(inference_pio.__all__) <= set(dir(inference_pio))


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(inference_pio, "LMM")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import inference_pio; "
        "heavy = {'torch', 'numpy', 'tokenizers', 'jinja2', 'huggingface_hub', 'typer', 'rich'} & set(sys.modules); "
        "print(round(time.perf_counter() - t, 3), sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, heavy = out.split(" ", 1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 0.2


def _capitals_first(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
