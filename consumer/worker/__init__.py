"""The worker's main thread: owns every job and takes requests from step to step."""
