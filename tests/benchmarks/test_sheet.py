"""The sheet of a tiny model: what is measured, what is said where nothing can be told, and its files."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.sheet import measure, plots
from inference_pio.benchmarks.sheet.files import write_sheet
from inference_pio.benchmarks.sheet.markdown import markdown
from inference_pio.benchmarks.sheet.measure import Measuring
from inference_pio.benchmarks.sheet.page import page
from inference_pio.benchmarks.sheet.record import Line, Sheet, compared
from inference_pio.benchmarks.sheet.words import in_short, worth
from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import UnavailableError, UsageError
from inference_pio.models.llama.benchmarks.workloads import SUITE

_VOID = {"meta", "br", "wbr"}


class _Reader(HTMLParser):
    """Open tags, what is left open, and where anything is fetched from."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def sheet(tiny_llama: Path) -> Sheet:
    names = ("flash_attention", "kv_int8", "multi_query_attention", "disk_offload", "compiled_step")
    settings = Settings(
        model=str(tiny_llama), device="cpu", dtype="float32", quick=True, rounds=1, techniques=names
    )
    measuring = Measuring(SUITE.within(2048), settings)
    measuring.run()
    return measuring.sheet({"dtype": "float32"}, "inference-pio report tiny")


def _line(sheet: Sheet, name: str) -> Line:
    return next(line for line in sheet.lines if line.name == name)


def test_every_technique_is_measured_or_says_why_not(sheet: Sheet) -> None:
    assert [(line.name, line.status) for line in sheet.lines] == [
        ("flash_attention", "measured"),
        ("multi_query_attention", "not applicable"),
        ("kv_int8", "measured"),
        ("disk_offload", "not applicable"),
        ("compiled_step", "dormant"),
    ]
    assert sheet.left == []
    assert "4 heads share 2" in _line(sheet, "multi_query_attention").reason
    assert _line(sheet, "disk_offload").reason == (
        "the model has no experts; layers paged to the disk are tensor_paging"
    )
    assert "replayed by the native kernels" in _line(sheet, "compiled_step").reason


def test_one_pair_tells_nothing_and_says_so(sheet: Sheet) -> None:
    line = _line(sheet, "flash_attention")
    for found in (line.first_token, line.per_token, line.throughput):
        assert found is not None
        assert found.verdict == "cannot tell"
        doubled = found.ratio.median > 2 or found.ratio.median < 0.5
        assert worth(found) == "cannot tell" or (doubled and worth(found).endswith(", of 1 pair"))
        assert found.with_it.median > 0
        assert found.without.count == line.rounds == 1


def test_what_takes_too_long_is_run_once_and_answers_no_text(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_SLOW_PAIR", "_ENDLESS_PAIR", "_SECONDS"):
        monkeypatch.setattr(measure, name, 0.0)
    settings = Settings(
        model=str(tiny_llama), device="cpu", dtype="float32", quick=True, techniques=("flash_attention",)
    )
    measuring = Measuring(SUITE.within(2048), settings)
    measuring.run()
    [line] = measuring.sheet({}, "").lines
    assert (line.status, line.rounds, line.quality) == ("measured", 1, None)
    assert line.throughput is not None


@pytest.mark.parametrize(
    ("work", "pair", "smaller"),
    [
        (Workload(64, 16, 8), 9.0, Workload(64, 8, 2)),
        (Workload(64, 8, 2), 9.0, Workload(64, 8, 1)),
        (Workload(64, 8, 1), 9.0, Workload(16, 8, 1)),
        (Workload(16, 8, 1), 9.0, Workload(16, 8, 1)),
        (Workload(64, 16, 8), 99.0, Workload(16, 8, 1)),
        (Workload(256, 8, 4, shared_len=240), 9.0, Workload(256, 8, 2, shared_len=240)),
        (Workload(256, 8, 2, shared_len=240), 9.0, Workload(64, 8, 2, shared_len=60)),
        (Workload(2112, 32, known_len=2048), 99.0, Workload(2112, 16, known_len=2048)),
    ],
)
def test_what_is_slow_gets_less_work_of_its_kind(work: Workload, pair: float, smaller: Workload) -> None:
    assert measure._smaller(work, pair) == smaller


def test_a_technique_is_measured_where_it_has_something_to_do(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense weights to round, no tiles where scores are to be bounded, no room in memory for what the disk keeps."""
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))
    names = ("bounded_scores", "prefix_disk_tier", "folded_norms", "weights_int8")
    settings = Settings(model=str(tiny_llama), device="cpu", quick=True, rounds=1, techniques=names)
    loaded = []
    load = Settings.load
    monkeypatch.setattr(Settings, "load", lambda *a, **k: loaded.append(k["changes"]) or load(*a, **k))
    measuring = Measuring(SUITE.within(2048), settings)
    measuring.run()
    assert [line.status for line in measuring.sheet({}, "").lines] == ["measured"] * 4
    assert loaded.count({"torch_dtype": "float32"}) == 1, "two lines compare with it"
    assert len(loaded) == 2 + 3 + 4, "the usual one twice, one for each kind of options, one for each line"


def test_answers_are_held_against_the_reference(sheet: Sheet) -> None:
    exact, rounded = (_line(sheet, name).quality for name in ("flash_attention", "kv_int8"))
    assert exact is not None
    assert rounded is not None
    # The baseline is float32, as the reference is: an exact technique moves nothing, int8 keys and values something.
    assert max(exact.kl, exact.moved, exact.kl_without) < 1e-6
    assert 1e-6 < rounded.kl < 0.1
    assert math.isclose(rounded.moved, rounded.kl, rel_tol=0.05)
    assert _line(sheet, "flash_attention").equal_answers == 1.0
    smaller = _line(sheet, "kv_int8").planned_bytes
    assert smaller is not None
    assert smaller[0] < smaller[1]


def test_ratios_say_better_whatever_the_unit() -> None:
    seconds = compared("ms", [1.0] * 8, [2.0] * 8)
    assert (seconds.ratio.median, seconds.verdict, seconds.with_it.median) == (2.0, "better", 1.0)
    rate = compared("tokens/s", [4.0] * 8, [2.0] * 8, rate=8)
    assert (rate.ratio.median, rate.verdict) == (0.5, "worse")
    assert (rate.with_it.median, rate.without.median) == (2.0, 4.0)
    assert worth(rate) == "2.00× worse"


def test_few_runs_tell_what_no_noise_does() -> None:
    assert worth(compared("ms", [1.0], [200.0])) == "200.00× better, of 1 pair"
    assert worth(compared("ms", [9.0, 9.0], [3.0, 3.0])) == "3.00× worse, of 2 pairs"
    assert worth(compared("ms", [2.0, 2.0], [3.0, 5.0])) == "cannot tell", "one of them is no double"


def test_the_first_lines_name_the_largest_effects_first(sheet: Sheet) -> None:
    line = _line(sheet, "flash_attention")
    many = [
        msgspec.structs.replace(
            line, name=name, exact=exact, throughput=compared("tokens/s", [1.0] * 8, [by] * 8, rate=8)
        )
        for name, by, exact in (("a", 1.5, True), ("b", 3.0, False), ("c", 0.5, True), ("d", 1.0, True))
    ]
    many.append(
        msgspec.structs.replace(line, name="e", throughput=compared("tokens/s", [1.0], [9.0], rate=8))
    )
    many[0] = msgspec.structs.replace(many[0], planned_bytes=(100_000_000, 400_000_000), under="cache=0")
    moved = line.quality.moved if line.quality else 0.0
    assert in_short(msgspec.structs.replace(sheet, lines=many)) == [
        f"More tokens per second with b 3.00× (KL {moved:.2g}), a 1.50× (under cache=0).",
        "Fewer with c 2.00×.",
        "Less memory with a 400 → 100 MB (under cache=0).",
        "No difference in speed that can be told: d.",
        "Too slow for more runs: e 9.00× better, of 1 pair.",
    ]
    assert in_short(msgspec.structs.replace(sheet, lines=[])) == []


def test_the_files(sheet: Sheet, tmp_path: Path) -> None:
    paths = write_sheet(sheet, tmp_path / "new")
    assert [path.suffix for path in paths] == [".json", ".md", ".html"]
    assert msgspec.json.decode(paths[0].read_bytes(), type=Sheet) == sheet
    text = paths[1].read_text()
    columns = {line.count(" | ") for line in text.splitlines() if line.startswith("| flash_attention")}
    assert columns == {10, 3}  # figures, and what they are of
    assert "inference-pio report tiny" in text


def test_the_page_is_whole_and_fetches_nothing(sheet: Sheet) -> None:
    text = page(sheet)
    reader = _Reader()
    reader.feed(text)
    assert (reader.open, reader.wrong, reader.fetched) == ([], [], [])
    assert reader.seen.count("svg") >= 5
    assert not {"script", "link", "img", "iframe"} & set(reader.seen)
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_what_a_model_is_called_is_no_markup(sheet: Sheet) -> None:
    changed = msgspec.structs.replace(sheet, model="<script>|x")
    assert "<script>" not in page(changed)
    assert "&lt;script&gt;" in page(changed)


def test_nothing_leaves_a_plot() -> None:
    row = plots.Bar(
        "a_technique_with_a_name_too_long_for_a_phone", 40.0, "40.00× (39.10–123.40)", "better", 0.01, 99.0
    )
    drawn = plots.bars("wide", [row, replace(row, ratio=0.02), replace(row, ratio=1.0, low=None, high=None)])
    point = plots.Point("one", 0.01, 0.0, exact=True)
    drawn += plots.scatter("points", [point, replace(point, speed=9.0, moved=3.0)])
    for x in re.findall(r' (?:x|x1|x2|cx)="([-0-9.]+)"', drawn):
        assert 0 <= float(x) <= plots.WIDTH
    for x, anchor, words in re.findall(r'<text[^>]* x="([0-9.]+)"[^>]*text-anchor="(\w+)">([^<]*)', drawn):
        width = plots._LETTER * len(words)
        left = float(x) - {"start": 0, "middle": width / 2, "end": width}[anchor]
        assert left >= 0, words
        assert left + width <= plots.WIDTH, words
    names = [len(words) for words in re.findall(r'class="name"[^>]*>([^<]*)', drawn)]
    values = [len(words) for words in re.findall(r'class="value"[^>]*>([^<]*)', drawn)]
    assert (max(names) + max(values)) * plots._LETTER < plots.WIDTH


def test_ctrl_c_leaves_what_is_finished(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(model=str(tiny_llama), device="cpu", dtype="float32", quick=True, rounds=1)
    names = ("multi_query_attention", "flash_attention", "kv_int8")
    measuring = Measuring(SUITE.within(2048), replace(settings, techniques=names))

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure.Measuring, "_measured", stop)
    with pytest.raises(KeyboardInterrupt):
        measuring.run()
    sheet = measuring.sheet({}, "again")
    assert [line.name for line in sheet.lines] == []
    assert sheet.left == ["flash_attention", "multi_query_attention", "kv_int8"]
    assert "Interrupted: flash_attention" in markdown(sheet)
    assert "Interrupted: flash_attention" in page(sheet)


def test_wrong_names_and_folders_are_told(sheet: Sheet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no technique is called 'warp'; there are flash_attention"):
        Measuring(SUITE, Settings(techniques=("warp",)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="the report cannot be written to"):
        write_sheet(sheet, tmp_path / "file" / "below")
