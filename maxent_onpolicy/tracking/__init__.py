"""TensorBoard, Weights & Biases, MLflow and Trackio as output formats of Stable-Baselines3's logger."""

from maxent_onpolicy.tracking.base import TrackerFormat
from maxent_onpolicy.tracking.logger import TRACKERS, TrackedLogger, check_trackers, make_format, make_logger
from maxent_onpolicy.tracking.mlflow_format import MlflowFormat
from maxent_onpolicy.tracking.run import TrackedRun, describe_model
from maxent_onpolicy.tracking.tensorboard_format import TensorBoardFormat
from maxent_onpolicy.tracking.trackio_format import TrackioFormat
from maxent_onpolicy.tracking.wandb_format import WandbFormat

__all__ = [
    "TRACKERS",
    "MlflowFormat",
    "TensorBoardFormat",
    "TrackedLogger",
    "TrackedRun",
    "TrackerFormat",
    "TrackioFormat",
    "WandbFormat",
    "check_trackers",
    "describe_model",
    "make_format",
    "make_logger",
]
