"""Reading traces, scaling them, and prompts that share what their hashes share."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest

from inference_pio.benchmarks.traces import PACKAGED, TracePrompts, TraceRequest, read_trace, scaled
from inference_pio.errors import UsageError

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
GOOD = "2023-11-16 18:17:03.9799600,4808,10\r\n"
ROW = {"timestamp": 27482, "input_length": 600, "output_length": 52, "hash_ids": [46, 47]}


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str, name: str = "trace") -> str:
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_azures_rows_are_seconds_and_tokens(written, name):
    path = written(AZURE + GOOD + "2023-11-16 18:18:04.0319600,3180,8\r\n", name)
    first, second = read_trace(path)
    assert first == TraceRequest(0.0, 4808, 10)
    assert second.seconds == pytest.approx(60.052, abs=1e-6)
    assert (second.prompt_tokens, second.output_tokens) == (3180, 8)


def test_mooncakes_rows_have_hashes(written):
    rows = [ROW, {**ROW, "timestamp": 30482, "hash_ids": [46, 99]}]
    path = written("".join(json.dumps(row) + "\n" for row in rows))
    assert read_trace(path) == [TraceRequest(0.0, 600, 52, (46, 47)), TraceRequest(3.0, 600, 52, (46, 99))]
    assert read_trace(path, 1) == read_trace(path)[:1]


def test_excerpts_come_with_the_package():
    lengths = {name: len(read_trace(name)) for name in PACKAGED}
    assert lengths == {"azure-code": 2000, "azure-conv": 2000, "mooncake": 1000}
    first = read_trace("azure-code")[0]
    assert (first.prompt_tokens, first.output_tokens) == (4808, 10)
    assert all(request.hash_ids for request in read_trace("mooncake"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: a trace begins with TIMESTAMP"),
        ("hello\n", "line 1: a trace begins with TIMESTAMP"),
        (AZURE, "holds no request"),
        (AZURE + GOOD + "2023-11-16 18:17:04,12\n", "line 3: '2023-11-16 18:17:04,12' is not"),
        (AZURE + "yesterday,12,3\n", "line 2: 'yesterday,12,3' is not"),
        (AZURE + GOOD + "2023-11-16 18:17:04,x,3\n", "line 3: "),
        (AZURE + GOOD + "2023-11-16 18:17:04,0,3\n", "one token at least"),
        (AZURE + GOOD + "2023-11-16 18:17:01.9799600,5,3\n", "line 3: 2 s before the line above it"),
        (AZURE + GOOD + "\n", "line 3: "),
        (json.dumps(ROW) + "\n{oops}\n", "line 2: '{oops}' is no request"),
        (json.dumps(ROW) + "\n[1]\n", "line 2: "),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n', "line 1: "),
        (json.dumps({**ROW, "hash_ids": [1]}) + "\n", "600 tokens are 2 hash_ids, got 1"),
        (json.dumps({**ROW, "hash_ids": [1, "2"]}) + "\n", "whole numbers"),
        (json.dumps({**ROW, "hash_ids": []}) + "\n", "600 tokens are 2 hash_ids, got 0"),
        (json.dumps({**ROW, "timestamp": float("nan")}) + "\n", "its time is no number"),
    ],
)
def test_a_bad_row_is_one_line_with_its_number(written, text, says):
    with pytest.raises(UsageError) as told:
        read_trace(written(text))
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_files_that_are_no_text_or_not_there(tmp_path):
    with pytest.raises(UsageError, match="give azure-code, azure-conv, mooncake or a file"):
        read_trace("azure")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"{" * 5000)[:-9])
    for name in ("bytes", "cut.gz"):
        with pytest.raises(UsageError, match="cannot be read as a trace"):
            read_trace(str(tmp_path / name))


def test_scaling_divides_tokens_and_time():
    requests = [TraceRequest(0.0, 1000, 100), TraceRequest(12.0, 15, 0)]
    assert scaled(requests, 16, 4.0) == [TraceRequest(0.0, 62, 6), TraceRequest(3.0, 1, 1)]
    assert scaled(requests, 1) == [requests[0], TraceRequest(12.0, 15, 1)]


def common(one, other) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@pytest.mark.parametrize("scale", [1, 3, 16, 100])
def test_prompts_share_what_their_hashes_share(scale):
    requests = scaled(read_trace("mooncake", 40), scale)
    prompts = TracePrompts(32_000, scale)
    ids = [prompts.token_ids(number, request) for number, request in enumerate(requests)]
    assert [len(one) for one in ids] == [request.prompt_tokens for request in requests]
    assert ids[3] == TracePrompts(32_000, scale).token_ids(3, requests[3])
    for one, other in itertools.combinations(range(40), 2):
        shared = common(requests[one].hash_ids, requests[other].hash_ids)
        tokens = min(shared * 512 // scale, len(ids[one]), len(ids[other]))
        assert tokens <= common(ids[one], ids[other]) <= tokens + 2  # by chance a little more


def test_prompts_without_hashes_share_nothing():
    prompts = TracePrompts(32_000, 16)
    one, other = (prompts.token_ids(number, TraceRequest(0.0, 50, 1)) for number in (1, 2))
    assert len(one) == len(other) == 50
    assert common(one, other) <= 2
