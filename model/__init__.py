"""The retriever: backbones, adapters, losses, and checkpoints of ours and of published programs.

``load_run`` is the way in from a notebook; see docs/api.md.
"""

from model.feature_encoder import load_run

__all__ = ["load_run"]
