"""Handwritten digits: the 1,797 images of 8x8 pixels in scikit-learn (UCI Optical Recognition, test part)."""

import numpy as np

from core.tasks.data import ImageData, TaskSource
from core.tasks.splitting import digest_of, stratified

VALIDATION, TEST = 0.15, 0.25


class Digits(TaskSource):
    """1,797 handwritten digits, 8x8 grey pixels. Trains in seconds; the test split has about 450 images."""

    def read(self, name: str) -> ImageData:
        """All images, stratified by digit."""
        from sklearn.datasets import load_digits  # half a second that only this task needs

        raw = load_digits()
        pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)[..., None]  # 0..16 -> 0..255, [N, 8, 8, 1]
        labels = raw.target.astype(np.int64)
        splits = stratified([digest_of(image.tobytes()) for image in pixels], labels, VALIDATION, TEST)
        return ImageData(
            class_names=tuple(str(digit) for digit in raw.target_names),
            shape=(1, 8, 8),
            labels={split: labels[indices] for split, indices in splits.items()},
            pixels=lambda split: pixels[splits[split]],
            content_hash=self.identity(pixels.tobytes(), labels.tobytes(), VALIDATION, TEST),
        )
