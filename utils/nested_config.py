"""The nested yaml of the published TBPS-CLIP, as flags of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils import UserError
from utils.distributed import world_size

_SAME = {
    "experiment": (
        *("citc_lambda1", "citc_lambda2", "citc_ratio", "cmt_depth", "mvs_image", "nitc_ratio", "ritc_eps"),
        *("ritc_ratio", "simclr_temperature", "ss_ratio", "text_length"),
    ),
    "schedule": ("eps", "lr", "weight_decay"),
    "model": ("softlabel_ratio",),
    "data": ("num_workers", "test_batch_size"),
    "misc": ("seed",),
}
"""keys of a section that are flags of ours"""
_RENAMED = {
    "experiment": {
        "dropout": "text_dropout",
        "eda_alpha": "word_deletion",
        "id_ratio": "id_loss_weight",
        "input_resolution": "img_size",
        "mlm_ratio": "mlm_loss_weight",
    },
    "schedule": {
        "epoch": "num_epoch",
        "epoch_warmup": "warmup_epochs",
        "lr_end": "target_lr",
        "ratio_factor": "lr_factor",
    },
    "model": {"checkpoint": "pretrain_choice"},
}
"""keys of a section that are flags of ours by another name"""
_LOSSES = ("ritc", "citc", "ss", "id", "mlm")
"""losses that a switch of the section ``experiment`` turns on, beside nitc"""
_READ = {
    "experiment": {*_LOSSES, "back_trans", "backtrans_p", "mixgen", "simclr_mlp"},
    "schedule": {"betas", "lr_start"},
    "data": {"batch_size"},
}
"""further keys of a section that are read here"""
_WITHOUT_EFFECT = {
    "": {"anno_dir", "image_dir", "device", "distributed", "log"},
    "experiment": {"mixgen_p", "mixgen_ratio", "mixgen_type"},
    "model": {"ckpt_type", "embed_dim", "saved_path", "use_gather", "vocab_size"},
}
_FIXED = {
    "augment": "pool",
    "bias_lr_factor": None,
    "clean_text": True,
    "decay": "matrices",
    "eval_filter": "bicubic",
    "freeze_patch_embedding": True,
    "lrscheduler": "cosine",
    "optimizer": "AdamW",
    "pixel_statistics": "imagenet",
    "schedule_per": "step",
}
"""what the program does without a key for it"""


def flattened(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The content of a yaml file, in the flat form where it is TBPS-CLIP's; any other is returned as it is.

    Raises:
        UserError: it asks for what is not built here, or a value is not what its key needs.
    """
    if not isinstance(content.get("experiment"), Mapping) or not isinstance(content.get("schedule"), Mapping):
        return dict(content)
    try:
        return _flattened({name: value for name, value in content.items() if name not in _WITHOUT_EFFECT[""]}, path)
    except (TypeError, ValueError, ZeroDivisionError, IndexError, KeyError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"--config_file {path}: not a configuration of TBPS-CLIP ({problem})") from None


def _flattened(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    flat: dict[str, Any] = dict(_FIXED)
    for section, values in content.items():
        same, renamed = _SAME.get(section, ()), _RENAMED.get(section, {})
        silent = _READ.get(section, set()) | _WITHOUT_EFFECT.get(section, set())
        for key, value in values.items():
            if key in same or key in renamed:
                flat[renamed.get(key, key)] = value
            elif key not in silent:
                flat[f"{section}.{key}"] = value  # which the reader of flags refuses by this name
    experiment, schedule = content["experiment"], content["schedule"]
    if experiment.get("mixgen"):
        raise UserError(
            f"--config_file {path}: experiment.mixgen is not built here (it helps nowhere); set it to false"
        )
    flat["loss_names"] = "+".join(["nitc", *(name for name in _LOSSES if experiment.get(name))])
    flat["back_translation"] = experiment.get("backtrans_p", 0.1) if experiment.get("back_trans") else 0.0
    if "simclr_mlp" in experiment:
        _, flat["ss_hidden"], flat["ss_width"] = experiment["simclr_mlp"]
    flat["alpha"], flat["beta"] = schedule["betas"]
    flat["warmup_factor"] = float(schedule["lr_start"]) / float(schedule["lr"])
    if "batch_size" in content.get("data", {}):  # there, that of a process
        flat["batch_size"] = int(content["data"]["batch_size"]) * world_size()
    return flat
