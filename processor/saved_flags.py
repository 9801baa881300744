"""Flags in commands and run directories that mean nothing for a program: published ones, and those of training."""

from collections.abc import Mapping, Sequence

from datasets.options import data_options
from model.build import model_options
from model.checkpoints.finetune import FinetuneOptions
from processor.run_dir.layout import RunOptions
from processor.trainer import LoopOptions
from solver import ScheduleOptions, SolverOptions
from utils.device import DeviceOptions
from utils.options import flag_names

PUBLISHED_WITHOUT_EFFECT = {
    "local_rank": "the launcher's environment says it",
    "vocab_size": "read off the weights",
    "ndata": "the number of training pairs is counted",
    "training": "train.py trains, test.py tests",
    "distributed": "the launcher's environment says it",
    "test": "train.py trains, test.py tests",
    "moe_lr_factor": "the published PHP never reads it",
    "transformer_lr_factor": "the published PHP never reads it",
    "lora": "--lora_r or --lora_alpha says it",
    "lora_FFN": "LoRA is on all linear layers of the towers",
    "Wq_r": "--lora_r says it",
    "Wk_r": "--lora_r says it",
    "Wv_r": "--lora_r says it",
    "vision_ctx": "as many as --num_context",
    "vision_depth": "the same as --prompt_depth",
    "pretrain_weight": "--pretrain_choice says it",
    "alpha_label": "belongs to none of the losses",
    "fine_tuning_factor": "belongs to none of the losses",
    "momentum_factor": "belongs to none of the losses",
    "queue_size": "belongs to none of the losses",
}
"""flags that published commands and run directories carry and that mean nothing here, with the reason"""

TRAINING_ONLY = flag_names(RunOptions, FinetuneOptions, SolverOptions, ScheduleOptions, LoopOptions)
"""flags in a run's configs.yaml that neither testing nor searching reads"""


def unread_by(groups: Mapping[str, Sequence[type]]) -> set[str]:
    """Flags that a run's configs.yaml may hold and that mean nothing for a program with these ``groups`` of flags."""
    read = flag_names(*(options for group in groups.values() for options in group))
    saved = (*data_options().values(), *model_options().values(), [DeviceOptions])
    return TRAINING_ONLY | (flag_names(*(options for group in saved for options in group)) - read)
