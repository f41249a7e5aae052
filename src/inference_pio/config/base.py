"""The standard's configuration record; a plugin's own class derives from it and adds its architecture's fields."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

from inference_pio.errors import ConfigError

if TYPE_CHECKING:
    import torch

_ARCHITECTURE = frozenset(
    {
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "max_position_embeddings",
        "intermediate_size",
        "vocab_size",
    }
)

_SET_BY_RUNTIME = "set by the runtime"
KV_BITS = (4, 8, 16)  # 16: as they are


def set_by_runtime(default: Any) -> Any:
    """A field of a model's own class that neither checkpoint nor caller decides, but what runs the model."""
    return field(default=default, metadata={_SET_BY_RUNTIME: True})


@dataclass
class BaseModelConfig:
    """Every field of the standard with its default; a model's own class gives the architecture its numbers.

    A flag that is on allows a technique; whether the technique is at work, the optimisation report tells.
    """

    # Model identification: model_path is a catalogue name, a file, a directory or a hub id.
    model_path: str = ""
    model_name: str = ""

    # Device settings
    device: str = "cpu"
    device_map: str = "auto"
    torch_dtype: str | torch.dtype = "float16"
    low_cpu_mem_usage: bool = True

    # Model architecture parameters: 0 until a checkpoint or a plugin's class says otherwise.
    hidden_size: int = 0
    num_attention_heads: int = 0
    num_hidden_layers: int = 0
    max_position_embeddings: int = 0
    intermediate_size: int = 0
    vocab_size: int = 0

    # Memory optimisation settings
    gradient_checkpointing: bool = True
    use_cache: bool = True

    # Generation parameters
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    repetition_penalty: float = 1.1
    max_new_tokens: int = 512
    do_sample: bool = True
    pad_token_id: int | None = None

    # Optimisation flags
    use_flash_attention_2: bool = True
    use_sparse_attention: bool = True
    use_multi_query_attention: bool = True
    use_grouped_query_attention: bool = True
    use_paged_attention: bool = True
    use_sliding_window_attention: bool = True
    use_fused_layer_norm: bool = True
    use_bias_removal_optimization: bool = True
    use_tensor_parallelism: bool = False

    # KV-cache compression settings
    use_kv_cache_compression: bool = True
    kv_cache_compression_method: str = "combined"
    kv_cache_quantization_bits: int = 8

    # Prefix caching settings; the size is in bytes
    use_prefix_caching: bool = True
    prefix_cache_max_size: int = 1024 * 1024 * 256

    # Kernels settings: of a GPU, and on a CPU of the native operations
    use_cuda_kernels: bool = True
    cuda_kernel_gelu_enabled: bool = True
    cuda_kernel_matmul_enabled: bool = True
    cuda_kernel_softmax_enabled: bool = True
    cuda_kernel_attention_enabled: bool = True
    cuda_kernel_mlp_enabled: bool = True
    cuda_kernel_layernorm_enabled: bool = True

    # Runtime memory optimisation settings
    torch_compile_mode: str = "reduce-overhead"
    torch_compile_fullgraph: bool = False
    torch_compile_dynamic: bool = True
    enable_cudnn_benchmark: bool = True
    enable_memory_efficient_attention: bool = True

    @classmethod
    def architecture_fields(cls) -> frozenset[str]:
        """The fields that a checkpoint decides: the standard's, and all that a model's own class adds."""
        base = {field.name for field in fields(BaseModelConfig)}
        return _ARCHITECTURE | {field.name for field in fields(cls) if field.name not in base}

    def check_options(self) -> None:
        """Switches, bits and sizes as the caller set them.

        Raises:
            ConfigError: a switch is neither True nor False, or a number is none that means something.
        """
        for each in fields(BaseModelConfig):
            value = getattr(self, each.name)
            if isinstance(each.default, bool) and not isinstance(value, bool):
                raise ConfigError(f"{each.name} must be True or False, got {value!r:.60}")
        bits, size = self.kv_cache_quantization_bits, self.prefix_cache_max_size
        if bits not in KV_BITS:
            raise ConfigError(f"kv_cache_quantization_bits must be 4, 8 or 16, got {bits!r:.60}")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ConfigError(
                f"prefix_cache_max_size must be a whole number of bytes from 0 up, got {size!r:.60}"
            )

    def with_options_of(self, asked: BaseModelConfig) -> Self:
        """This configuration (read from a checkpoint) with the options of the one a caller passed.

        Raises:
            ConfigError: the caller set an architecture field to something the checkpoint contradicts, or an option to
                what it cannot be.
        """
        asked.check_options()
        architecture = self.architecture_fields()
        options = {}
        for each in fields(asked):
            value = getattr(asked, each.name)
            if each.name not in architecture:
                options[each.name] = value
            elif (
                value not in (_default(each), getattr(self, each.name))
                and _SET_BY_RUNTIME not in each.metadata
            ):
                raise ConfigError(
                    f"{each.name} is {value!r} in the configuration and {getattr(self, each.name)!r} in the "
                    f"checkpoint; leave it out, the checkpoint decides"
                )
        if options["pad_token_id"] is None:
            options["pad_token_id"] = self.pad_token_id
        return replace(self, **options)


def _default(field: Field[object]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default
