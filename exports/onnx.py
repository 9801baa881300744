"""ONNX: a file for images and one for captions, which onnxruntime runs without PyTorch.

What is traced are the retriever's own methods, so that whatever they add to the towers (parsing, prompts, a second
embedding) goes along.

Shape letters: N images or captions, L text positions, D embedding, H height, W width.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from exports.format import ExportedRun, ExportFormat, TargetProgram
from exports.tokenizer import tokenizer_of
from model.retriever import Retriever
from utils import UserError
from utils.files import write_text

README = """# A retrieval model in ONNX

`image.onnx`: `pixels` (N, 3, H, W) float32 to `features` (N, D). `text.onnx`: `ids` (N, L) int64 to `features` (N, D).
Features have length 1; their dot product is the score. `preprocessing.json` says how pixels and ids are made.

```python
import json

import numpy as np
import onnxruntime
import tokenizers

about = json.load(open("FOLDER/preprocessing.json"))
tokenizer = tokenizers.Tokenizer.from_file("FOLDER/tokenizer.json")
ids = np.array([caption.ids for caption in tokenizer.encode_batch(["a man in a black jacket"])])
(text_features,) = onnxruntime.InferenceSession("FOLDER/text.onnx").run(["features"], {"ids": ids})

size = about["image"]["width"], about["image"]["height"]
resized = image.convert("RGB").resize(size, about["image"]["resample"])  # image: PIL
pixels = (np.asarray(resized, np.float32) / 255 - about["image"]["mean"]) / about["image"]["std"]
pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)
(image_features,) = onnxruntime.InferenceSession("FOLDER/image.onnx").run(["features"], {"pixels": pixels})
```
"""
_LARGEST = 1_900_000_000
"""bytes of weights that fit into a protobuf; more go to a file beside"""


class _Image(nn.Module):
    def __init__(self, model: Retriever) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, D)."""
        return normalize(self.model.encode_image(pixels).feature, dim=1)


class _Text(nn.Module):
    def __init__(self, model: Retriever, end_id: int) -> None:
        super().__init__()
        self.model, self.end_id = model, end_id

    def forward(self, ids: Tensor) -> Tensor:
        """(N, L) to (N, D); a caption ends with its first end token."""
        lengths_N = (ids == self.end_id).int().argmax(dim=1) + 1
        return normalize(self.model.encode_text(ids, lengths_N).feature, dim=1)


def write(run: ExportedRun, folder: Path) -> None:
    """``image.onnx``, ``text.onnx``, ``preprocessing.json`` and, for CLIP's tokenizer, ``tokenizer.json``."""
    model, form = run.encoder.model, run.encoder.inputs
    if model.attends_over_batch:
        raise UserError(
            "--format onnx: cannot express --php_attention batch, with which a feature depends on the other samples "
            "of its batch; --format safetensors can"
        )
    pixels = torch.zeros(2, 3, *form.image_size)
    ids, _ = form.tokenizer(["a man", "a woman in red"], form.text_length)
    _trace(_Image(model), {"pixels": pixels}, folder / "image.onnx")
    _trace(_Text(model, form.tokenizer.end_id), {"ids": ids}, folder / "text.onnx")
    tokenizer_of(form.tokenizer, form.text_length).save(str(folder / "tokenizer.json"))
    height, width = form.image_size
    about = {
        "image": {
            "mode": "RGB, upright as the EXIF orientation says",
            "height": height,
            "width": width,
            "resize": f"to this size, whatever the aspect ratio; {form.resize_filter} with antialias, as Pillow's",
            "resample": int(Image.Resampling[form.resize_filter.upper()]),
            "scale": 1 / 255,
            "mean": form.pixel_mean,
            "std": form.pixel_std,
            "order": "(value * scale - mean) / std",
        },
        "text": {
            "tokenizer": "tokenizer.json",
            "length": form.text_length,
            "start_id": form.tokenizer.start_id,
            "end_id": form.tokenizer.end_id,
            "padding_id": form.tokenizer.pad_id,
        },
    }
    write_text(folder / "preprocessing.json", json.dumps(about, indent=2) + "\n")


def _trace(module: nn.Module, example: Mapping[str, Tensor], path: Path) -> None:
    """Write a module with one input as an ONNX graph for any number of samples, whose output is ``features``."""
    ((name, value),) = example.items()
    sizes = {name: {0: torch.export.Dim("N")}}
    external = sum(weight.nbytes for weight in module.parameters()) > _LARGEST
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        program = torch.export.export(module.eval(), (value,), dynamic_shapes=sizes, strict=False)
        torch.onnx.export(
            program,
            input_names=[name],
            output_names=["features"],
            dynamic_shapes=sizes,
            external_data=external,
            verbose=False,
        ).save(path, external_data=external)


def load(folder: Path) -> TargetProgram:
    """As the README says."""
    import onnxruntime

    about = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    size = about["image"]["width"], about["image"]["height"]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / about["text"]["tokenizer"]))
    sessions = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("image", "text")}

    def encode_image(images: Sequence[Image.Image]) -> Tensor:
        resized = [image.convert("RGB").resize(size, about["image"]["resample"]) for image in images]
        pixels_NHWC = np.stack([np.asarray(image) * about["image"]["scale"] for image in resized])
        pixels_NHWC = (pixels_NHWC - about["image"]["mean"]) / about["image"]["std"]
        return run("image", {"pixels": pixels_NHWC.transpose(0, 3, 1, 2).astype(np.float32)})

    def encode_text(captions: Sequence[str]) -> Tensor:
        return run("text", {"ids": np.array([caption.ids for caption in tokenizer.encode_batch(captions)])})

    def run(name: str, inputs: Mapping[str, np.ndarray]) -> Tensor:
        return torch.from_numpy(sessions[name].run(["features"], inputs)[0])

    return TargetProgram(encode_image, encode_text)


FORMAT = ExportFormat(write, load, ("onnx", "onnxscript", "onnxruntime"), README)
