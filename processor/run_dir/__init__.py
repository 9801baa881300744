"""The run directory: its layout, checkpoints, run.json, history, curves and TensorBoard events, and several seeds."""
