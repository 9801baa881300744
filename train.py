"""Train a retriever: ``python train.py --dataset_name CUHK-PEDES --root_dir DATA --loss_names sdm+id+mlm``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.batches import fields
from datasets.batches.evaluation_split import EvalData, captions_and_paths, eval_data
from datasets.batches.options import DataOptions, checked_images, data_groups, read_dataset, require_split
from datasets.batches.train_loader import TrainLoader, TrainPairs, prepare_batch
from datasets.images.source import ImageOptions, Images
from datasets.mannequins import draw as mannequins
from datasets.records import Dataset, counts
from model.adapters.parsing import LEAK
from model.adapters.prompts import PromptOptions
from model.backbones.clip import load_clip, weights_file
from model.backbones.spec import BackboneOptions
from model.build import (
    LossOptions,
    TrainCounts,
    build_retriever,
    check_text,
    model_groups,
    momentum_flag,
    needed_fields,
    padded_fields,
    parameter_summary,
    reads_padding,
    several_ids,
)
from model.checkpoints.archives import read_torch_file, state_dict_in
from model.checkpoints.finetune import FinetuneOptions, start_from
from model.checkpoints.published import our_names
from model.losses.base import PairFeatures
from model.retriever import Retriever
from processor.evaluator import encode_split, evaluate
from processor.examples import RawSplit, draw_examples
from processor.metrics.table import metrics_table
from processor.run_dir.checkpoint import read_last, set_seed
from processor.run_dir.layout import RunOptions, choose_run_dir, interrupted_run, make_run_dir
from processor.run_dir.published_flags import PUBLISHED_WITHOUT_EFFECT
from processor.run_dir.record import RunRecord, facts_of
from processor.run_dir.seeds import train_seeds
from processor.trainer import LoopOptions, Progress, Trainer
from solver.optimizer import SolverOptions, build_optimizer
from solver.schedule import ScheduleOptions, set_epoch
from utils.command import parse, run_command
from utils.device import DeviceOptions, Precision, pick_device, pick_precision
from utils.distributed import main_first, on_main
from utils.log import NEXT, log_to, setup_logger
from utils.options import Options

log = logging.getLogger("descry")

GROUPS = {
    "run": [RunOptions, FinetuneOptions, DeviceOptions],
    **data_groups(),
    **model_groups(),
    "optimiser": [SolverOptions, ScheduleOptions],
    "loop": [LoopOptions],
}
"""every flag of train.py, by section of --help"""


class TrainingData(NamedTuple):
    """What a run reads."""

    dataset: Dataset
    loader: TrainLoader
    validation: EvalData
    pids: Tensor
    """identity of every training pair, for reports"""
    images: Images
    raw: RawSplit
    """the validation split before it is encoded"""


def read_flags(argv: Sequence[str] | None) -> Options:
    """Flags of the command line over those of ``--config_file``; a resumed run starts from its own configs.yaml."""
    options = parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT)
    run = options.get(RunOptions)
    if interrupted := on_main(partial(interrupted_run, run, options.get(DataOptions).dataset_name)):
        given = sys.argv[1:] if argv is None else argv
        return read_flags([*given, "--resume", "--resume_ckpt_file", str(interrupted)])
    options = options.over(run.saved_flags, PUBLISHED_WITHOUT_EFFECT) if run.resume else options
    return options.moved("momentum", momentum_flag(options.get(LossOptions).loss_names))


def load_data(options: Options, flags: DataOptions, precision: Precision) -> TrainingData:
    """Read, check and serve the data set that the flags name."""
    loss_names = options.get(LossOptions).loss_names
    augment = options.get(fields.AugmentOptions)
    size = options.get(BackboneOptions).img_size
    dataset = read_dataset(flags, options.get(mannequins.MannequinOptions))
    require_split(dataset, "train", "--dataset_name")
    require_split(dataset, flags.val_dataset, "--val_dataset")
    splits = ("train", flags.val_dataset)
    dataset, images = checked_images(dataset, size, flags, options.get(ImageOptions), splits)
    made = fields.fields_to_make(needed_fields(loss_names), augment)
    whole = reads_padding(loss_names, options.get)
    padded = fields.TEXT_FIELDS if whole else padded_fields(loss_names)
    pairs = TrainPairs(dataset.train, images, made, padded, augment, flags.text_length, flags.seed)
    pinned = precision.device.type == "cuda"
    records = dataset.split(flags.val_dataset)
    validation = eval_data(flags.val_dataset, records, images, flags, whole, pinned)
    loader = TrainLoader(pairs, flags, pinned, several_ids(loss_names))
    raw = RawSplit(*captions_and_paths(records), images.picture)
    return TrainingData(dataset, loader, validation, torch.from_numpy(pairs.pids), images, raw)


def load_finetune(model: Retriever, path: Path) -> None:
    """Start from ``--finetune``, and say what was used of it."""
    state, unknown = our_names(state_dict_in(read_torch_file(path), path))
    used, unused = start_from(model, state, str(path))
    log.info("--finetune %s: used %s; not used: %s", path, ", ".join(used), ", ".join([*unused, *unknown]) or "nothing")


def fill_banks(model: Retriever, training: TrainingData, flags: DataOptions, precision: Precision) -> None:
    """Start the memory banks from the features of all training pairs, which takes a pass over them."""
    records = training.dataset.train
    pinned = precision.device.type == "cuda"
    split = eval_data("memory: train", records, training.images, flags, model.reads_padding, pinned)
    features = encode_split(model, split, precision)
    image_N = torch.tensor([row for row, record in enumerate(records) for _ in record.captions])
    image_ND = features.image_GD[image_N.to(precision.device)]
    model.fill_banks(PairFeatures(image_ND, features.text_QD, split.query_pids, image_N))
    log.info("memory banks filled from %d training pairs", len(image_N))


def record_of(run_dir: Path, options: Options, dataset: Dataset, precision: Precision) -> RunRecord:
    """The run.json that these flags and this data set begin or, in a resumed run, continue."""
    resumed, finetune = options.get(RunOptions).resume, options.get(FinetuneOptions).finetune
    weights = Path(finetune) if finetune else weights_file(options.get(BackboneOptions))
    weights = None if resumed and finetune else weights
    facts = facts_of(options.flat(), precision.device, precision.dtype, weights, dataset.annotation)
    return RunRecord(run_dir, facts, resumed)


def train(options: Options) -> Progress:
    """Train once, from build to the final table."""
    run, flags = options.get(RunOptions), options.get(DataOptions)
    device_flags = options.get(DeviceOptions)
    precision = pick_precision(device_flags, device := pick_device(device_flags))
    run_dir = on_main(partial(choose_run_dir, run, flags.dataset_name))
    setup_logger()
    log.info("run directory: %s", run_dir)
    log.info("device %s, %s", device, str(precision.dtype).removeprefix("torch."))
    set_seed(flags.seed)
    with main_first():  # which may have to download weights, draw data or fill a cache
        checkpoint = read_last(run.checkpoint) if run.resume else None
        clip = load_clip(options.get(BackboneOptions))
        room = check_text(clip, flags.text_length, options.get(PromptOptions).count)
        flags = replace(flags, text_length=room)
        training = load_data(options, flags, precision)
    loss_names = options.get(LossOptions).loss_names
    ids, images, pairs = counts(training.dataset.train)
    model = build_retriever(clip, loss_names, options.get, TrainCounts(ids, pairs, images)).to(device)
    if model.attends_over_batch:
        log.warning(LEAK)
    if options.get(FinetuneOptions).finetune and checkpoint is None:
        load_finetune(model, Path(options.get(FinetuneOptions).finetune))
    if model.has_banks and checkpoint is None:
        fill_banks(model, training, flags, precision)
    log.info("losses: %s; %s", loss_names, parameter_summary(model))
    if flags.val_dataset == "test":
        log.warning("best.pth is chosen on the test split, as published; --val_dataset val keeps the two apart")
    schedule = options.get(ScheduleOptions)
    optimizer = build_optimizer(model.parameter_roles(), options.get(SolverOptions))
    needed = needed_fields(loss_names)
    trainer = Trainer(
        model,
        optimizer,
        training.loader,
        options=options.get(LoopOptions),
        num_epoch=schedule.num_epoch,
        set_epoch=partial(set_epoch, optimizer, options=schedule),
        prepare=partial(
            prepare_batch, device=device, aliases=fields.aliases(needed, options.get(fields.AugmentOptions))
        ),
        evaluate=partial(evaluate, model, training.validation, precision),
        precision=precision,
        run_dir=run_dir,
        record=record_of(run_dir, options, training.dataset, precision),
        report=partial(model.epoch_report, training.pids),
        picture=partial(draw_examples, split=training.validation, raw=training.raw),
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        log.info("resumed in epoch %d after step %d", trainer.progress.epoch, trainer.progress.step)
    on_main(partial(make_run_dir, run_dir, options))
    log_to(run_dir / "train_log.txt")
    done = trainer.run()
    rows = {f"{name} (epoch {row['epoch']})": row for name, row in (("best", done.best), ("last", done.last))}
    log.info("t2i on %s\n%s", flags.val_dataset, metrics_table(rows, "epoch"))
    log.info("test it with: python test.py --config_file %s", run_dir / "configs.yaml", extra=NEXT)
    return done


def main(argv: Sequence[str] | None = None) -> None:
    """Train from flags; see README."""
    options = read_flags(argv)
    run = options.get(RunOptions)
    if run.seeds:
        folder = on_main(partial(choose_run_dir, run, options.get(DataOptions).dataset_name))
        train_seeds(options, folder, train)
    else:
        train(options)


if __name__ == "__main__":
    run_command(main)
