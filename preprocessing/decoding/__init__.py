"""Turn video files and images into timed frames, if necessary in a sandboxed process."""
