"""From the bytes of a video to frames in time, inside a sandboxed process."""
