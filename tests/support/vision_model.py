"""A tiny random Qwen3-VL with a tokenizer and a template that know images, and what Transformers answers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from inference_pio.conformance.tiny_tokenizer import write_tokenizer
from support.images import gradient, saved

START, PLACEHOLDER, END = (f"<|{name}|>" for name in ("vision_start", "image_pad", "vision_end"))
POSITIONS = 640
# As Qwen3-VL's own template writes parts.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Each becomes 8 × 8 tokens or a little more; RED and BLUE the same number of them.
RED = saved(gradient(300, 200), "PNG")
BLUE = saved(gradient(300, 200).transpose(Image.Transpose.ROTATE_180), "JPEG")
TALL = saved(gradient(60, 500), "WEBP", lossless=True)


def data_url(image: bytes) -> str:
    kind = Image.open(io.BytesIO(image)).format
    assert kind is not None
    return f"data:image/{kind.lower()};base64,{base64.b64encode(image).decode()}"


def write_vision_model(folder: Path) -> VisionReference:
    """The model's files in `folder`; skips the test where the plugin is not there."""
    case = pytest.importorskip("inference_pio.models.qwen3_vl.tests.case")
    reference = pytest.importorskip("inference_pio.models.qwen3_vl.tests.reference")
    write_tokenizer(folder, TEMPLATE)
    facts = json.loads((folder / "tokenizer.json").read_text())
    first = max(entry["id"] for entry in facts["added_tokens"]) + 1
    like = facts["added_tokens"][-1]
    facts["added_tokens"] += [
        {**like, "id": first + index, "content": token}
        for index, token in enumerate((START, PLACEHOLDER, END))
    ]
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    text, vision = {"max_position_embeddings": POSITIONS}, {"patch_size": 16}
    raw = case.tiny_config(text, vision, image_token_id=first + 1)
    made = reference.TransformersQwen3VL(raw)
    made.save(folder, "safetensors")
    (folder / "config.json").write_text(json.dumps(raw))
    return VisionReference(folder, made.model)


class VisionReference:
    """Transformers' model, image processor and tokenizer."""

    def __init__(self, folder: Path, model: Any) -> None:
        from transformers import PreTrainedTokenizerFast
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.path, self._model = folder, model
        self._tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), bos_token=None, eos_token=None
        )
        self._processor = Qwen2VLImageProcessorPil(
            size={"shortest_edge": 256**2, "longest_edge": 4096**2},
            patch_size=16,
            merge_size=2,
            temporal_patch_size=2,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )

    def chat(self, messages: list[dict[str, Any]], images: Sequence[bytes], count: int) -> list[int]:
        """The greedy answer to a conversation whose image parts hold these images, in order."""
        text = self._tokenizer.apply_chat_template(
            messages, chat_template=TEMPLATE, add_generation_prompt=True, tokenize=False
        )
        return self.generate(text, images, count)

    def generate(self, text: str, images: Sequence[bytes], count: int) -> list[int]:
        """The greedy continuation of a text with one placeholder for each image; no token ends it."""
        from transformers.image_utils import load_image

        inputs: dict[str, Any] = {}
        if images:
            opened = [load_image(Image.open(io.BytesIO(image))) for image in images]
            inputs = dict(self._processor(images=opened, return_tensors="pt"))
            before, *rest = text.split(PLACEHOLDER)
            lengths = (inputs["image_grid_thw"].prod(dim=1) // 4).tolist()
            text = before + "".join(PLACEHOLDER * n + part for n, part in zip(lengths, rest, strict=True))
        ids = torch.tensor([self._tokenizer.encode(text, add_special_tokens=False)])
        inputs["mm_token_type_ids"] = (ids == self._model.config.image_token_id).int()
        with torch.inference_mode():
            made = self._model.generate(
                ids, **inputs, do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0
            )
        answer: list[int] = made[0, ids.shape[1] :].tolist()
        return answer
