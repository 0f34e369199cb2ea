"""Small films for tests of the job, good and bad ones."""

from pathlib import Path

import av
import numpy as np


def make_films(folder: Path, count: int) -> None:
    """Write `count` films of 160x120 pixels and 40 frames or more, one that breaks off, and one that is none."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw = np.random.default_rng(number)
        scene = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        with av.open(str(folder / f"film{number:02d}.mp4"), "w") as film:
            stream = film.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "10"})
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            for index in range(40 + 4 * number):
                part = np.roll(scene, (-2 * index, -3 * index), axis=(0, 1))[:120, :160]
                film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(part), format="rgb24")))
            film.mux(stream.encode())
    # The index of an mp4 is at its end, so that what is cut off cannot be opened; an MPEG stream can.
    with av.open(str(folder / "film00.mp4")) as whole, av.open(str(folder / "broken.mkv"), "w") as copy:
        source = whole.streams.video[0]
        target = copy.add_stream_from_template(source)
        for packet in whole.demux(source):
            if packet.dts is not None:
                packet.stream = target
                copy.mux(packet)
    data = (folder / "broken.mkv").read_bytes()
    (folder / "broken.mkv").write_bytes(data[: int(len(data) * 0.7)])
    (folder / "text.avi").write_text("no video\n" * 100)
