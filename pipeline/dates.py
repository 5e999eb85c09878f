"""The name by which model files of format 1 know `DateFeatures`; newer ones name `tensorfleet.model_types`."""

from pipeline.features.dates import DateFeatures

__all__ = ["DateFeatures"]
