"""Trained runs as files of other programs: one file per format, each of which checks what it wrote.

Shape letters: N images or captions, D embedding.
"""

from exports import onnx, open_clip, safetensors, transformers
from exports.format import ExportFormat

EXPORTS: dict[str, ExportFormat] = {
    "transformers": transformers.FORMAT,
    "open_clip": open_clip.FORMAT,
    "onnx": onnx.FORMAT,
    "safetensors": safetensors.FORMAT,
}
