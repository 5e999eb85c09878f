"""The name of `DateFeatures` in model files of format 1; newer files use `tensorfleet.model_types`."""

from pipeline.features.dates import DateFeatures

__all__ = ["DateFeatures"]
