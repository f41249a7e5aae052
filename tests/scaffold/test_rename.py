"""What is renamed in a file, and what belongs to somebody else."""

from __future__ import annotations

import json

import pytest

from inference_pio.plugin.registry import default_registry
from inference_pio.scaffold.names import Names
from inference_pio.scaffold.pruned import pruned
from inference_pio.scaffold.rename import Renaming
from inference_pio.scaffold.source import Source


@pytest.fixture(scope="module")
def llama() -> Renaming:
    return Renaming.of(Source.of(default_registry().get("llama")), Names.of("my_model"))


@pytest.mark.parametrize(
    ("code", "renamed"),
    [
        (
            "from inference_pio.models.llama.config import LlamaConfig\n",
            "from inference_pio_my_model.config import MyModelConfig\n",
        ),
        ("import transformers\nx = transformers.LlamaConfig\n", None),
        ("from transformers import LlamaForCausalLM\nx = LlamaForCausalLM()\n", None),
        ("from transformers.models.llama.modeling_llama import LlamaModel\ny = LlamaModel\n", None),
        ("x = TransformersLlama()\n", "x = TransformersMyModel()\n"),
        ("x = self.LlamaConfig\n", "x = self.MyModelConfig\n"),
        ("def test_it_finds_llama_here(): pass\n", "def test_it_finds_my_model_here(): pass\n"),
        ("def test_as_llama_cpp_does(): pass\n", None),
        ("llama = 1\n_llama3 = 2\n", None),
        (
            'x = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}\n',
            'x = {"architectures": ["MyModelForCausalLM"], "model_type": "my_model"}\n',
        ),
        ('x = key.removeprefix("llama.")\n', 'x = key.removeprefix("my_model.")\n'),
        ('x = f"llama.{key}"\n', 'x = f"my_model.{key}"\n'),
        (
            'x = "inference_pio.models.llama.plugin:LlamaPlugin"\n',
            'x = "inference_pio_my_model.plugin:MyModelPlugin"\n',
        ),
        ('x = "llama3", "smollm2-135m", "Llama-3.2-1B", "llama-spm", "tiny-llama", "a/llama.cpp"\n', None),
        ("# Llama 3, Llama (Touvron 2023), llama.cpp, LLAMA\n", None),
        ("# a llama of llamas; Llama's way\n", "# a my_model of my_models; MyModel's way\n"),
        ("# convert_hf_to_gguf.py's LlamaModel.permute, transformers.LlamaModel\n", None),
    ],
)
def test_python(llama: Renaming, code: str, renamed: str | None) -> None:
    assert llama.python(code) == (code if renamed is None else renamed)


def test_several_on_a_line_and_over_lines(llama: Renaming) -> None:
    code = 'def f(a: LlamaConfig, b: "LlamaModel") -> LlamaConfig:\n    """Of llama,\n    and of Llama.\n    """\n'
    assert llama.python(code) == code.replace("Llama", "MyModel").replace("llama", "my_model")


def test_imports_are_in_order_again(llama: Renaming) -> None:
    code = (
        "import torch\n\n"
        "from inference_pio import ops\n"
        "from inference_pio.models.llama.attention import (\n    flash_attention,\n)\n"
        "from inference_pio.models.llama.config import LlamaConfig\n"
        "from inference_pio.plugin.facts import TechniqueFact\n\nx = 1\n"
    )
    assert llama.python(code) == (
        "import torch\n\n"
        "from inference_pio import ops\n"
        "from inference_pio.plugin.facts import TechniqueFact\n"
        "from inference_pio_my_model.attention import (\n    flash_attention,\n)\n"
        "from inference_pio_my_model.config import MyModelConfig\n\nx = 1\n"
    )


def test_names_with_a_point_are_models() -> None:
    qwen2 = Renaming("models.qwen2", Names.of("my_model"), {}, frozenset({"qwen2"}), ("Qwen2",))
    for kept in ('x = "qwen2.5-coder-1.5b"\n', "# Qwen2.5, qwen2_vl, Qwen2 (Yang et al. 2024)\n"):
        assert qwen2.python(kept) == kept
    assert qwen2.python("# Qwen2, throughput of qwen2\n") == "# MyModel, throughput of my_model\n"


def test_files_beside_the_code_keep_their_names() -> None:
    renamed = Renaming(
        "m", Names.of("my_model"), {}, frozenset({"qwen3"}), ("Qwen3",), frozenset({"qwen3.published.json"})
    )
    assert (
        renamed.python('x = "qwen3.published.json", "qwen3.x"\n')
        == 'x = "qwen3.published.json", "my_model.x"\n'
    )


def test_metadata(llama: Renaming) -> None:
    facts = {
        "general.architecture": "llama",
        "general.name": "llama",
        "llama.block_count": 2,
        "tokenizer.ggml.model": "llama",
        "architectures": ["LlamaForCausalLM"],
    }
    assert json.loads(llama.json(json.dumps(facts))) == {
        "general.architecture": "my_model",
        "general.name": "llama",
        "my_model.block_count": 2,
        "tokenizer.ggml.model": "llama",
        "architectures": ["MyModelForCausalLM"],
    }


def test_what_only_the_source_can_say_is_left_out() -> None:
    code = (
        "import pytest\n\n\n"
        "def test_a():\n    assert f()\n\n\n"
        "@pytest.mark.slow\n@pytest.mark.weights\ndef test_b():\n    assert g()\n\n\n"
        'CASE = PluginCase(name="é", claims=frozenset(\n    {"x"}\n), ignored=frozenset())\n'
        'MANIFEST = Manifest(name="a", description="b" "c", plugin="d")\n'
    )
    assert pruned(code, "new") == (
        "import pytest\n\n\n"
        "def test_a():\n    assert f()\n\n\n"
        'CASE = PluginCase(name="é", claims=frozenset(), ignored=frozenset())\n'
        'MANIFEST = Manifest(name="a", description="new", plugin="d")\n'
    )
