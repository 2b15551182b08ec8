"""Leukocytes in an image: from a field or a single-cell crop to cells with masks and flags."""

from millie.segmentation.crops import crop_window, cut_crop, cut_mask
from millie.segmentation.leukocytes import (
    SEGMENTERS,
    central_region,
    detect,
    sample_statistics,
    segment,
)
from millie.segmentation.scale import SampleStatistics, is_contradicted

__all__ = [
    "SEGMENTERS",
    "SampleStatistics",
    "central_region",
    "crop_window",
    "cut_crop",
    "cut_mask",
    "detect",
    "is_contradicted",
    "sample_statistics",
    "segment",
]
