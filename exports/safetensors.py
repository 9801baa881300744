"""safetensors: our own keys in a file that cannot run code, with the flags that encoding needs in its metadata."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from exports.format import ExportedRun, ExportFormat, TargetProgram
from model.checkpoints.archives import FLAGS, SAFETENSORS
from model.feature_encoder import load_run

README = """# A retrieval model in safetensors

`model.safetensors` holds the weights (LoRA merged); its metadata holds the flags, as json under `flags`.

```python
from model import load_run

retriever = load_run("FOLDER")
text_features = retriever.encode_text(["a man in a black jacket"])
image_features = retriever.encode_image([image])  # image: a path or a PIL image
```

`test.py --config_file RUN/configs.yaml --checkpoint FOLDER/model.safetensors` tests it, too.
"""


def write(run: ExportedRun, folder: Path) -> None:
    """``model.safetensors``."""
    state = {key: value.contiguous() for key, value in run.encoder.model.state_dict().items()}
    flags = json.dumps(run.flags, sort_keys=True, default=str)
    save_file(state, folder / f"model{SAFETENSORS}", metadata={FLAGS: flags})


def load(folder: Path) -> TargetProgram:
    """By ``load_run``."""
    encoder = load_run(folder, device="cpu")
    return TargetProgram(_quietly(encoder.encode_image), _quietly(encoder.encode_text))


def _quietly(encode: Callable[..., Tensor]) -> Callable[[Sequence[Any]], Tensor]:
    return partial(encode, progress=False)


FORMAT = ExportFormat(write, load, (), README)
