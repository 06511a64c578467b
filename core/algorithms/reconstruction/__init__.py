"""Learned rounding: layers or blocks whose codes are chosen so that their outputs stay what they were."""
