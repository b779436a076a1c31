"""Videos of trained policies: recorded from any ``VecEnv`` that can be rendered, as MP4 or GIF."""

from maxent_onpolicy.video.callback import RecordedVideo, VideoCallback
from maxent_onpolicy.video.files import VideoWriter, check_video_path
from maxent_onpolicy.video.recorder import VideoRecorder, record_video

__all__ = ["RecordedVideo", "VideoCallback", "VideoRecorder", "VideoWriter", "check_video_path", "record_video"]
