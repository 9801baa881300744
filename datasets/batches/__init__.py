"""Batches for training and evaluation: fields, samplers, the training loader, the evaluation split."""
