"""Kinds of tasks. Loads no torch."""

import enum

SPLITS = ("train", "calibration", "validation", "test")


class Kind(enum.StrEnum):
    """The kind of a task: its inputs and outputs."""

    IMAGE_CLASSIFICATION = "image classification"  # pixel_values [B, C, H, W] -> logits [B, n_classes]
    TEXT_CLASSIFICATION = "text classification"  # input_ids, attention_mask [B, T] -> logits [B, n_classes]
    LANGUAGE_MODELLING = "language modelling"  # input_ids [B, T] -> logits [B, T, vocab_size]
    EMBEDDINGS = (
        "embeddings"  # input_ids, attention_mask [B, T], or [B, 2, T] for pairs -> embeddings [B, D], [B, 2, D]
    )
