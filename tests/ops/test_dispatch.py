"""Which implementation runs, what `table` says about it, and that nothing breaks without native kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import inference_pio
from inference_pio import ops
from inference_pio.errors import ConfigError
from inference_pio.ops import native

NAMES = [
    "absorbed_attention",
    "add_rms_norm",
    "add_shared",
    "attention_mass",
    "causal_conv",
    "decay_and_rate",
    "gated_delta_rule",
    "gated_rms_norm",
    "gelu_tanh_and_mul",
    "paged_attention",
    "rms_norm",
    "rope_and_cache",
    "row_max",
    "sigmoid_gate",
    "silu_and_mul",
    "small_linear",
    "sparse_attention",
    "store_latents",
    "take_columns",
    "top_experts",
    "top_sigmoid_experts",
    "turn_tails",
    "quantized_linear",
]


def test_the_table_names_every_operation_once_per_device():
    lines = [line for line in ops.table() if line.device == "cpu"]
    assert [line.name for line in lines] == NAMES
    assert all(line.reason for line in lines)


@pytest.mark.usefixtures("built")
def test_use_switches_and_switches_back():
    assert {line.implementation for line in ops.table() if line.device == "cpu"} == {"native"}
    with ops.use("reference"):
        assert {line.implementation for line in ops.table()} == {"reference"}
        with ops.use("native"):
            assert ops.table()[0].implementation == "native"
        assert ops.table()[0].reason == "asked for"
    assert ops.table()[0].implementation == "native"


def test_another_word_is_refused():
    with pytest.raises(ConfigError, match="not 'fast'"), ops.use("fast"):
        pass


def test_float16_runs_in_torch():
    x, weight = torch.randn(3, 20).half(), torch.ones(20).half()
    with ops.use("reference"):
        want = ops.rms_norm(x, weight, 1e-5)
    assert torch.equal(ops.rms_norm(x, weight, 1e-5), want)


def elsewhere(tmp_path: Path, code: str, **environment: str) -> str:
    """What `code` prints when it runs on a copy of the package, with a library that the test may have changed."""
    command = [sys.executable, "-c", code]
    env = {"PYTHONPATH": str(tmp_path), "PATH": "", **environment}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True, cwd=tmp_path).stdout


SAY = "from inference_pio import ops; print(ops.table()[0].implementation, ops.table()[0].reason, sep=': ')"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    source = Path(inference_pio.__file__).parent
    ignore = shutil.ignore_patterns("*.so", "models", "__pycache__")
    shutil.copytree(source, tmp_path / "inference_pio", ignore=ignore)
    return tmp_path


@pytest.mark.slow
def test_without_the_library_the_reference_runs_and_says_why(package):
    assert elsewhere(package, SAY).startswith("reference: native kernels not built")
    forced = "from inference_pio.errors import *\ntry:\n import inference_pio.ops\nexcept ResourceError as e: print(e)"
    assert "native kernels not built" in elsewhere(package, forced, INFERENCE_PIO_OPS="native")


@pytest.mark.slow
def test_a_broken_library_is_reported_and_not_fatal(package):
    (package / "inference_pio" / "_native.so").write_bytes(b"not a library")
    assert elsewhere(package, SAY).startswith("reference: native kernels do not load (")


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_the_environment_chooses(tmp_path):
    source = str(Path(inference_pio.__file__).parent.parent)
    assert elsewhere(tmp_path, SAY, PYTHONPATH=source, INFERENCE_PIO_ISA="portable").startswith(
        "native: portable"
    )
    said = elsewhere(tmp_path, SAY, PYTHONPATH=source, INFERENCE_PIO_ISA="mmx")
    assert said.startswith("reference: ")
    assert "'mmx'" in said
    assert (
        elsewhere(tmp_path, SAY, PYTHONPATH=source, INFERENCE_PIO_OPS="reference") == "reference: asked for\n"
    )


@pytest.mark.usefixtures("built")
def test_the_operators_keep_to_their_schemas():
    x, weight = torch.randn(2, 8), torch.ones(8)
    checks = ("test_schema",)
    operators = torch.ops.inference_pio
    torch.library.opcheck(operators.rms_norm.default, (x, weight, 1e-5, 0.0), test_utils=checks)
    torch.library.opcheck(
        operators.add_rms_norm.default, (x, x.clone(), weight, 1e-5, 0.0), test_utils=checks
    )
    torch.library.opcheck(operators.silu_and_mul.default, (x,), test_utils=checks)
    torch.library.opcheck(operators.gelu_tanh_and_mul.default, (x,), test_utils=checks)
    assert native.MISSING is None
