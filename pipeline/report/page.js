"use strict";
(() => {
  // Animations: a canvas replaces each sprite sheet and shows one frame at a time.
  const SHARP = 2; // canvas pixels per frame pixel, so that enlarged pixels stay square
  const animations = [];
  const player = document.getElementById("player");
  const playButton = document.getElementById("play");
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      entry.target.animation.visible = entry.isIntersecting;
      draw(entry.target.animation);
    }
  }, { rootMargin: "200px" });
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let clock = 0;
  let last = null;

  function draw(animation) {
    if (!animation.visible && animation.shown >= 0) return; // a page that is printed or captured shows all of them
    const frame = ((Math.floor(clock * animation.fps + 1e-6) % animation.frames) + animation.frames) % animation.frames;
    if (frame === animation.shown) return;
    animation.shown = frame;
    const { context, sheet, width, height, rows } = animation;
    const column = Math.floor(frame / rows);
    context.clearRect(0, 0, width * SHARP, height * SHARP);
    context.drawImage(sheet, column * width, (frame % rows) * height, width, height, 0, 0, width * SHARP, height * SHARP);
  }

  function tick(now) {
    if (!playing) return;
    if (last !== null) clock += Math.min(now - last, 250) / 1000;
    last = now;
    animations.forEach(draw);
    requestAnimationFrame(tick);
  }

  function play(on) {
    playing = on;
    last = null;
    playButton.textContent = on ? "Pause" : "Play";
    playButton.setAttribute("aria-label", on ? "pause the animations" : "play the animations");
    document.documentElement.classList.toggle("playing", on);
    if (on) requestAnimationFrame(tick);
  }

  for (const box of document.querySelectorAll(".animation")) {
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
      const animation = { context, sheet, width, height, rows, frames, fps: Number(box.dataset.fps), visible: false, shown: -1 };
      box.animation = animation;
      animations.push(animation);
      draw(animation);
      watcher.observe(box);
    }).catch(() => {}); // an undecodable sheet shows its first frame or its text alternative
  }
  if (document.querySelector(".animation")) {
    player.hidden = false;
    playButton.addEventListener("click", () => play(!playing));
    for (const button of player.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => {
        play(false);
        clock += Number(button.dataset.step) / Math.max(...animations.map((animation) => animation.fps));
        animations.forEach(draw);
      });
    }
    play(playing);
  }

  // Latent maps: the factor that determines colour and shape, and the highlighted value.
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
  if (chosen && legends.length) colour(Number(chosen.value)); // browsers restore form state on reload
})();
