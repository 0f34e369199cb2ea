"use strict";
(() => {
  // Films: a canvas takes the place of each sheet of frames and shows one of them at a time.
  const SHARP = 2; // pixels of the canvas per pixel of a frame, so that enlarged pixels stay square
  const films = [];
  const player = document.getElementById("player");
  const playButton = document.getElementById("play");
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      entry.target.film.seen = entry.isIntersecting;
      draw(entry.target.film);
    }
  }, { rootMargin: "200px" });
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let clock = 0;
  let last = null;

  function draw(film) {
    if (!film.seen) return;
    const frame = ((Math.floor(clock * film.fps + 1e-6) % film.frames) + film.frames) % film.frames;
    if (frame === film.shown) return;
    film.shown = frame;
    const { context, sheet, width, height, rows } = film;
    const column = Math.floor(frame / rows);
    context.clearRect(0, 0, width * SHARP, height * SHARP);
    context.drawImage(sheet, column * width, (frame % rows) * height, width, height, 0, 0, width * SHARP, height * SHARP);
  }

  function tick(now) {
    if (!playing) return;
    if (last !== null) clock += Math.min(now - last, 250) / 1000;
    last = now;
    films.forEach(draw);
    requestAnimationFrame(tick);
  }

  function play(on) {
    playing = on;
    last = null;
    playButton.textContent = on ? "Pause" : "Play";
    playButton.setAttribute("aria-label", on ? "pause the moving pictures" : "play the moving pictures");
    document.documentElement.classList.toggle("playing", on);
    if (on) requestAnimationFrame(tick);
  }

  for (const box of document.querySelectorAll(".film")) {
    const sheet = box.querySelector("img");
    sheet.decode().then(() => {
      const frames = Number(box.dataset.frames);
      const rows = Number(box.dataset.rows);
      const canvas = document.createElement("canvas");
      const width = sheet.naturalWidth / Math.ceil(frames / rows);
      const height = sheet.naturalHeight / rows;
      canvas.width = width * SHARP;
      canvas.height = height * SHARP;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", sheet.alt);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      sheet.hidden = true;
      box.append(canvas);
      const film = { context, sheet, width, height, rows, frames, fps: Number(box.dataset.fps), seen: false, shown: -1 };
      box.film = film;
      films.push(film);
      watcher.observe(box);
    }).catch(() => {}); // a sheet that cannot be decoded shows its first frame, or its words
  }
  if (document.querySelector(".film")) {
    player.hidden = false;
    playButton.addEventListener("click", () => play(!playing));
    for (const button of player.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => {
        play(false);
        clock += Number(button.dataset.step) / Math.max(...films.map((film) => film.fps));
        films.forEach(draw);
      });
    }
    play(playing);
  }

  // Maps of codes: the factor that gives colour and shape, and the value that stands out.
  const points = [...document.querySelectorAll(".map use")].map((mark) => ({ mark, values: mark.dataset.v.split(" ") }));
  const legends = [...document.querySelectorAll(".map-legend")];

  function colour(number) {
    legends.forEach((legend) => (legend.hidden = Number(legend.dataset.factor) !== number));
    const continuous = legends[number].dataset.continuous === "yes";
    for (const { mark, values } of points) {
      mark.setAttribute("href", continuous ? "#mark-0" : `#mark-${values[number]}`);
      mark.setAttribute("class", `${continuous ? "shade" : "value"}-${values[number]}`);
    }
    highlight(number, null);
  }

  function highlight(number, value) {
    for (const button of legends[number].querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.value === value));
    }
    for (const { mark, values } of points) mark.classList.toggle("dim", value !== null && values[number] !== value);
  }

  for (const choice of document.querySelectorAll("input[name=factor]")) {
    choice.addEventListener("change", () => colour(Number(choice.value)));
  }
  legends.forEach((legend, number) => {
    legend.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) highlight(number, button.getAttribute("aria-pressed") === "true" ? null : button.dataset.value);
    });
  });
  const chosen = document.querySelector("input[name=factor]:checked");
  if (chosen && legends.length) colour(Number(chosen.value)); // browsers remember choices over a reload
})();
