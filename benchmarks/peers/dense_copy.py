"""A GGUF file's weights in bfloat16, as a directory for engines that read no GGUF: python dense_copy.py FILE FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(file: Path, folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16, local_files_only=True
    )
    tied = bool(model.config.tie_word_embeddings)
    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True).save_pretrained(
        folder
    )
    config = model.config
    del config.quantization_config  # the copy is not quantised
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)  # last: without it the folder counts as not there


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
