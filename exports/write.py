"""From flags to a folder that another program reads, or to the reason why it cannot."""

import logging
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from exports import EXPORTS
from exports.check import TOLERANCE, difference
from exports.format import ExportedRun
from model.adapters.token_selection import TokenSelectionOptions
from model.backbones.spec import BackboneOptions
from model.checkpoints.restore import restore
from model.feature_encoder import FeatureEncoder
from utils import UserError
from utils.files import new_folder, write_text
from utils.log import NEXT
from utils.options import Options, opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and to where."""

    format: str | None = opt(None, "program that is to read it", choices=tuple(EXPORTS))
    output: Path | None = opt(None, "folder to make; must not exist")
    checkpoint: Path | None = opt(None, "weights to export; default: best.pth beside --config_file")

    def __post_init__(self) -> None:
        if self.format is None:
            raise UserError(f"--format: say for which program, one of {', '.join(EXPORTS)}")
        if self.output is None:
            raise UserError("--output: say which folder to make, as in --output exported")
        missing = [name for name in EXPORTS[self.format].packages if find_spec(name) is None]
        if missing:
            raise UserError(f"--format {self.format}: needs {' and '.join(missing)}; see requirements/export.in")


def exported_run(options: Options) -> ExportedRun:
    """The run of ``--config_file``, with LoRA merged, in float32 on the CPU.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    restored = restore(options.get(ExportOptions).checkpoint or options.config_file.parent / "best.pth", options.get)
    backbone = options.get(BackboneOptions)
    encoder = FeatureEncoder(restored.model, restored.model.input_format(backbone.text_length))
    groups = (backbone, restored.parsing, options.get(TokenSelectionOptions))
    return ExportedRun(encoder, {name: value for group in groups for name, value in asdict(group).items()})


def write_export(run: ExportedRun, name: str, output: Path) -> None:
    """Write a run in the format ``name``, read it back with the program it is for, and compare the features.

    Raises:
        UserError: the folder exists, the format cannot express the run, or computes something else; then nothing is
            written.
    """
    chosen = EXPORTS[name]
    with new_folder(output, "--output") as folder:
        chosen.write(run, folder)
        write_text(folder / "README.md", chosen.readme)
        found = difference(run.encoder, chosen.load(folder))
        summary = f"largest difference of the features: images {found.image:.1e}, captions {found.text:.1e}"
        if not max(found) <= TOLERANCE:
            raise UserError(f"--format {name}: {summary}, more than {TOLERANCE:.0e}; nothing was written")
    log.info("%s, at most %.0e allowed", summary, TOLERANCE)
    log.info("exported to %s; its README.md shows how to use it", output, extra=NEXT)
