"""Train a retriever: ``python train.py --dataset_name CUHK-PEDES --root_dir DATA --loss_names sdm+id+mlm``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
from collections.abc import Sequence
from pathlib import Path

from datasets.label_noise import NoiseOptions
from datasets.open import evaluation_splits, open_for_training
from datasets.options import DataOptions, data_options
from model.backbones import BackboneOptions, load_backbone
from model.build import LossOptions, build_retriever, model_options
from model.checkpoints.finetune import FinetuneOptions, finetune
from model.division import DivisionOptions, published_fit
from model.presets import momentum_flag
from processor.joint_evaluator import make_evaluator
from processor.metrics.table import metrics_table
from processor.progress import Progress
from processor.run_dir.checkpoint import read_last, set_seed
from processor.run_dir.layout import RunOptions, interrupted_run, make_run_dir, run_directory
from processor.run_dir.run_dir import open_run_dir
from processor.run_dir.seeds import train_seeds
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT
from processor.trainer import LoopOptions, Trainer
from solver import build_solver, solver_options
from utils.command import parse, run_command
from utils.device import DeviceOptions, pick_precision
from utils.distributed import main_first, on_main
from utils.log import NEXT, log_to, setup_logger
from utils.options import Options

log = logging.getLogger("descry")

GROUPS = {
    "run": [RunOptions, FinetuneOptions, DeviceOptions],
    **data_options(),
    **model_options(),
    **solver_options(),
    "loop": [LoopOptions],
}
"""every flag of train.py, by section of --help"""


def read_flags(argv: Sequence[str] | None) -> Options:
    """Flags of the command line over those of ``--config_file``; a resumed run starts from its own configs.yaml."""
    options = parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT)
    run = options.get(RunOptions)
    if interrupted := on_main(lambda: interrupted_run(run, options.get(DataOptions).dataset_name)):
        options = options.replaced(resume=True, resume_ckpt_file=str(interrupted))
        options = options.based_on(interrupted / "configs.yaml", PUBLISHED_WITHOUT_EFFECT)
    elif run.resume:
        run.refuse_config_file(options.config_file)
        options = options.based_on(run.saved_flags, PUBLISHED_WITHOUT_EFFECT)
    if options.get(DataOptions).val_sets and not options.given("val_dataset"):
        options = options.replaced(val_dataset="val")  # several data sets were never chosen on by their test splits
    if options.get(DivisionOptions).division_fit == "published":
        noise, dataset_name = options.get(NoiseOptions).noisy_rate, options.get(DataOptions).dataset_name
        options = options.replaced(division_fit=published_fit(noise or 0.0, dataset_name))
    return options.renamed("momentum", momentum_flag(options.get(LossOptions).names))


def train(folder: Path, options: Options) -> Progress:
    """Train once, from build to the final table, in a run directory that no other process writes to."""
    get, run, data, start = options.get, options.get(RunOptions), options.get(DataOptions), options.get(FinetuneOptions)
    precision = pick_precision(get(DeviceOptions))
    setup_logger()
    log.info("run directory: %s", folder)
    log.info("device %s", precision)
    set_seed(data.seed)
    with main_first():  # which may have to download weights, draw data or fill a cache
        checkpoint = read_last(run.checkpoint) if run.resume else None
        backbone = load_backbone(get(BackboneOptions))
        opened, val_sets = open_for_training(options, backbone.spec.image_size, backbone.spec.eval_filter)
    model = build_retriever(backbone, get, *opened.train_counts, precision)
    form = model.input_format(get(BackboneOptions).text_length)
    loader = opened.train_loader(form, model.needed_fields, model.padded_fields, precision.device)
    evaluator = make_evaluator(model, evaluation_splits(val_sets, data.val_dataset, form, precision.device))
    if start.path and checkpoint is None:
        finetune(model, start.path, get(BackboneOptions).text_stretch)
    log.info("losses: %s; %s", get(LossOptions).loss_names, model.parameter_summary())
    if data.val_dataset == "test":
        log.warning("best.pth is chosen on the test split, as published; --val_dataset val keeps the two apart")
    # run.json keeps the digest of --finetune, which a resumed run does not read again
    weights = (None if run.resume else start.path) if start.path else backbone.weights_file
    run_dir = open_run_dir(folder, options, precision, weights, opened.annotations)
    optimizer, schedule = build_solver(model.parameter_roles(), get)
    trainer = Trainer(model, optimizer, schedule, loader, evaluator, run_dir, get(LoopOptions))
    if checkpoint is not None:
        trainer.resume(checkpoint)
        log.info("resumed in epoch %d after step %d", trainer.progress.epoch, trainer.progress.step)
    on_main(lambda: make_run_dir(folder, options))
    log_to(folder / "train_log.txt")
    done = trainer.run()
    rows = {f"{name} (epoch {row['epoch']})": row for name, row in (("best", done.best), ("last", done.last))}
    log.info("t2i on %s, %s\n%s", data.val_dataset, precision.name, metrics_table(rows, "epoch"))
    log.info("test it with: python test.py --config_file %s", folder / "configs.yaml", extra=NEXT)
    return done


def main(argv: Sequence[str] | None = None) -> None:
    """Train from flags; see README.md."""
    options = read_flags(argv)
    run = options.get(RunOptions)
    with run_directory(run, options.get(DataOptions).dataset_name) as folder:
        if run.seeds:
            train_seeds(options, folder, train)
        else:
            train(folder, options)


if __name__ == "__main__":
    run_command(main)
