"""The benchmark of products: a line for each kernel that reads packed weights, and rates that are what was measured."""

from __future__ import annotations

import json

import pytest

import products
from inference_pio.ops import native

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason="packed products have no torch reference")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 64, "COLUMNS": 256, "TOKENS": (1, 3), "SECONDS": 0, "_ROTATING": 0}.items():
        monkeypatch.setattr(products, name, value)


def test_every_product_has_its_line() -> None:
    names = [(figure.name, figure.tokens) for figure in products.figures(["Q4_1", "IQ2_XXS"])]
    for kind in ("Q4_1", "IQ2_XXS"):
        assert {(f"{kind} {op}", t) for op in ("linear", "gated_linear") for t in (1, 3)} <= set(names)
        assert (f"{kind} embedding", 1024) in names
    assert ("torch bfloat16", 3) in names
    assert ("row_max of 49152", 32) in names


def test_rates_belong_to_the_time() -> None:
    figure = products.measured("x", 3, [lambda: None], nbytes=10_000, operations=500)
    seconds = figure.microseconds / 1e6
    assert figure.gigabytes_per_second * seconds == pytest.approx(1e-5)
    assert figure.gigaoperations_per_second * seconds == pytest.approx(3 * 500 / 1e9)


def test_json_lines_and_a_kind_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["products", "--kinds", "Q8_0", "--json"])
    products.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["name"] for line in lines} > {"Q8_0 linear", "Q8_0 embedding"}
    monkeypatch.setattr("sys.argv", ["products", "--kinds", "Q9_9"])
    with pytest.raises(SystemExit):
        products.main()
    assert "Q9_9" in capsys.readouterr().err
