"""Plans of models whose files are not here: from a configuration alone, or from what is known of a file's header."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio.errors import ModelFileError, ModelNotFound
from inference_pio.loader import catalogue
from inference_pio.loader.known import KnownModel, find_known, known_models
from inference_pio.plugin.registry import claims_checkpoint, default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.plan_only import Planned, plan_only
from inference_pio.security import ResourceLimits

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
HUB = [known for known in known_models() if known.repo]
OPTIONS = RuntimeOptions(max_num_seqs=1, download=False)


def _runs(known: KnownModel) -> bool:
    """Whether a plugin that is installed claims it."""
    return any(claims_checkpoint(each.manifest, known.raw()) for each in default_registry().all())


def _plan(model: str | Path, options: RuntimeOptions = OPTIONS, dtype: str = "bfloat16") -> Planned:
    return plan_only(str(model), dtype, "cpu", options, None, None)


@pytest.fixture(autouse=True)
def _nothing_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "models"))


# Keys and values of a token in bfloat16, by hand: 2 · layers · KV heads · head_dim · 2 bytes; in GLM a latent and a
# rotary key, 47 · (512 + 64) · 2; in Qwen3-Next of 12 layers only.
PER_TOKEN = {
    "smollm2-135m-instruct": 2 * 30 * 3 * 64 * 2,
    "qwen2.5-coder-1.5b-instruct": 2 * 28 * 2 * 128 * 2,
    "tinyllama-1.1b-chat": 2 * 22 * 4 * 64 * 2,
    "gemma-3-270m": 2 * 18 * 1 * 256 * 2,
    "qwen3-0.6b": 2 * 28 * 8 * 128 * 2,
    "qwen3-32b": 2 * 64 * 8 * 128 * 2,
    "qwen3-coder-30b-a3b-instruct": 2 * 48 * 4 * 128 * 2,
    "glm-4.7-flash": 47 * (512 + 64) * 2,
    "qwen3-coder-next": 2 * 12 * 2 * 256 * 2,
}
# The values that the design names for four of them.
STATED = {"smollm2-135m-instruct": 23_040, "qwen3-0.6b": 114_688, "qwen3-coder-30b-a3b-instruct": 98_304}
STATED |= {"glm-4.7-flash": 54_144, "qwen3-coder-next": 24_576}


@pytest.mark.parametrize("name", PER_TOKEN)
def test_bytes_of_a_token(name: str) -> None:
    known = find_known(name)
    assert known is not None
    if not _runs(known):
        pytest.skip(f"no plugin for {name}")
    plan = _plan(name).prepared.plan
    assert plan.kv_bytes_per_token == PER_TOKEN[name] == STATED.get(name, PER_TOKEN[name])
    state = (
        36 * (32 * 128 * 128 + 3 * 8192) * 4
    )  # 36 layers: a matrix per head, three inputs of the convolution
    assert plan.state_bytes_per_sequence == (state if name == "qwen3-coder-next" else 0)


@pytest.mark.parametrize("known", HUB, ids=lambda known: known.name)
def test_bytes_of_weights_are_those_of_transformers_class(known: KnownModel) -> None:
    """All that the class stores, tied tensors once, in bfloat16; and the plan is of that checkpoint's size."""
    transformers = pytest.importorskip("transformers")
    if not _runs(known):
        pytest.skip(f"no plugin for {known.name}")
    config = transformers.AutoConfig.for_model(**deepcopy(known.config))
    with torch.device("meta"):
        reference = getattr(transformers, known.config["architectures"][0])(config)
    planned = _plan(known.name)
    stored = (
        dict(reference.named_buffers()).keys() & reference.state_dict().keys()
    )  # correction biases of routers
    tensors = [*reference.parameters(), *(reference.get_buffer(name) for name in stored)]
    expected = 2 * sum(tensor.numel() for tensor in tensors)
    assert planned.described
    assert planned.prepared.file_bytes == expected
    plan = planned.prepared.plan  # where memory is too small, layers are on the disk
    assert expected <= plan.weights + plan.paged


def test_the_default_dtype_is_the_stated_one(tmp_path: Path) -> None:
    raw = json.loads((CONFIGS / "SmolLM2-135M.config.json").read_text())
    sizes = {}
    for dtype in ("bfloat16", "float32", None):
        folder = tmp_path / str(dtype)
        folder.mkdir()
        stated = {key: value for key, value in raw.items() if key not in ("dtype", "torch_dtype")}
        (folder / "config.json").write_text(json.dumps({**stated, "torch_dtype": dtype}))
        sizes[dtype] = _plan(folder).prepared.file_bytes
    assert sizes["bfloat16"] == sizes[None] == sizes["float32"] / 2 == 2 * 134_515_008


def test_a_folder_and_a_file_are_the_same_plan(tmp_path: Path) -> None:
    text = (CONFIGS / "SmolLM2-135M.config.json").read_text()
    (tmp_path / "config.json").write_text(text)
    named = _plan(CONFIGS / "SmolLM2-135M.config.json")
    folder = _plan(tmp_path)
    assert (named.prepared.config.model_name, folder.prepared.config.model_name) == (
        "SmolLM2-135M.config",
        tmp_path.name,
    )
    parts = [
        {
            key: value
            for key, value in each.prepared.plan.as_dict().items()
            if key in ("weights", "activations")
        }
        for each in (named, folder)
    ]
    assert parts[0] == parts[1]
    with pytest.raises(ModelNotFound, match="only its configuration is here"):
        folder.prepared.files  # noqa: B018


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"config\.json"):
        _plan(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Unheard"], "model_type": "unheard"}))
    with pytest.raises(ModelFileError, match="Unheard"):
        _plan(tmp_path)
    # Weights that cannot be loaded are not planned around.
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match="pickle"):
        _plan(tmp_path)


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: entry.name)
def test_every_model_of_the_catalogue_is_planned_without_its_file(entry: catalogue.Entry) -> None:
    if entry.architecture not in default_registry().names():
        pytest.skip(f"plugin {entry.architecture} is not installed")
    for name in (entry.name, *entry.aliases):
        planned = plan_only(name, "auto", "cpu", OPTIONS, None, None)
        assert planned.described
        prepared = planned.prepared
        assert prepared.config.model_name == entry.name
        # The file is its tensors and, in front of them, the vocabulary.
        assert 0 <= entry.size_bytes - prepared.file_bytes < 8_000_000
        assert prepared.config.max_position_embeddings == entry.context_length
    stored = {info.dtype for info in find_known(entry.name).header().tensors.values()}  # type: ignore[union-attr]
    assert set(prepared.packing.used_kinds()) <= stored
    assert sum(parameter.numel() for parameter in prepared.model.parameters()) >= entry.parameters


def test_known_headers_are_those_of_the_files() -> None:
    """Against a header that a plugin's tests keep of the same file."""
    llama = pytest.importorskip("inference_pio.models.llama.tests.case")
    known = find_known("smollm2-135m-instruct")
    assert known is not None
    header = known.header()
    assert header is not None
    stated = json.loads((Path(llama.__file__).parent / "smollm2-135m-instruct.header.json").read_text())
    assert {name: list(info.shape) for name, info in header.tensors.items()} == stated["tensors"]
    common = stated["metadata"].keys() & known.metadata.keys()
    assert {key for key in stated["metadata"] if key.startswith("llama.")} <= common
    assert {key: known.metadata[key] for key in common} == {key: stated["metadata"][key] for key in common}


def test_known_configurations_are_the_collected_ones() -> None:
    for known in HUB:
        collected = CONFIGS / f"{known.repo.rpartition('/')[2]}.config.json"
        assert known.config == json.loads(collected.read_text()), known.name
        assert find_known(known.repo) == find_known(known.name.upper()) == known
        assert catalogue.find(known.name) is None


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most of this machine: what the plan says fits does, and a block more does not."""
    pytest.importorskip("inference_pio.models.qwen3")
    limits = ResourceLimits(memory_gb=6.0)
    monkeypatch.setattr("inference_pio.runtime.prepared.available_bytes", lambda: 20 * 10**9)

    def plan(**options: Any) -> Any:
        asked = RuntimeOptions(**{"max_num_seqs": 1, "download": False, **options})
        return plan_only("qwen3-0.6b", "bfloat16", "cpu", asked, limits, None).prepared.plan

    found = plan()
    assert found.fits
    assert 256 < found.longest < found.positions == 40960
    assert found.longest_at_once == 1
    longest = found.longest // 32 * 32
    assert plan(max_model_len=longest).fits
    assert not plan(max_model_len=longest + 64).fits
    limits = ResourceLimits(memory_gb=16.0)
    roomy = plan()
    assert (roomy.longest, roomy.longest_at_once) == (40960, 3)


def test_fewer_bits_are_offered_where_they_help(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("inference_pio.models.qwen3")
    monkeypatch.setattr("inference_pio.runtime.prepared.available_bytes", lambda: 20 * 10**9)

    def plan(gigabytes: float, model: str = "qwen3-8b") -> Planned:
        limits = ResourceLimits(memory_gb=gigabytes)
        return plan_only(model, "auto", "cpu", OPTIONS, limits, None)

    assert plan(20.0).smaller is None
    in_eight, in_four = plan(14.0).smaller, plan(9.0).smaller
    if in_eight is None or in_four is None:
        pytest.skip("no native kernels")
    assert (in_eight[0], in_eight[1].plan.fits) == ("int8", True)
    assert (in_four[0], in_four[1].plan.fits) == ("int4", True)
    none = plan(1.0).smaller
    assert none is not None
    assert (none[0], none[1].plan.fits) == ("int4", False)


def test_experts_go_to_the_disk_where_no_bits_are_few_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("inference_pio.models.qwen3_moe")
    monkeypatch.setattr("inference_pio.runtime.prepared.available_bytes", lambda: 50 * 10**9)
    found = {}
    for gigabytes in (40.0, 22.0, 10.0):
        limits = ResourceLimits(memory_gb=gigabytes)
        smaller = plan_only("qwen3-coder-30b-a3b-instruct", "auto", "cpu", OPTIONS, limits, None).smaller
        if smaller is None:
            pytest.skip("no native kernels")
        plan = smaller[1].plan
        found[gigabytes] = (smaller[0], plan.fits, plan.mapped > 0)
    assert found == {40.0: ("int8", True, False), 22.0: ("int4", True, False), 10.0: ("int4", True, True)}
