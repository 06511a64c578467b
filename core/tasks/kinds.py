"""Words that tasks are described with. Loads no torch."""

import enum

SPLITS = ("train", "calibration", "validation", "test")


class Kind(enum.StrEnum):
    """What goes into a model and what comes out."""

    IMAGE_CLASSIFICATION = "image classification"  # pixel_values [B, C, H, W] -> logits [B, n_classes]
    TEXT_CLASSIFICATION = "text classification"  # input_ids, attention_mask [B, T] -> logits [B, n_classes]
    LANGUAGE_MODELLING = "language modelling"  # input_ids [B, T] -> logits [B, T, vocab_size]
