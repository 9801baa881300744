"""The retriever: backbones, adapters, losses, and checkpoints of ours and of published programs."""
