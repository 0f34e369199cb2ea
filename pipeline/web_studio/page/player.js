// Animations in step: one clock for all canvases, each of which shows one frame of its sheet.

const SHARP = 2; // canvas pixels per frame pixel, so that enlarged pixels stay square
const animations = new Set();
let clock = 0;
let last = null;
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

function draw(animation) {
  const { sheet, canvas, image } = animation;
  const frame = ((Math.floor(clock * sheet.fps + 1e-6) % sheet.frames) + sheet.frames) % sheet.frames;
  if (frame === animation.shown) return;
  animation.shown = frame;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  const [left, top] = [Math.floor(frame / sheet.rows) * sheet.width, (frame % sheet.rows) * sheet.height];
  context.drawImage(image, left, top, sheet.width, sheet.height, 0, 0, canvas.width, canvas.height);
}

function drawAll() {
  for (const animation of animations) {
    if (animation.seen && !animation.canvas.isConnected) animations.delete(animation);
    else if (animation.ready) draw(animation);
    animation.seen ||= animation.canvas.isConnected;
  }
}

function tick(now) {
  if (!playing) return;
  if (last !== null) clock += Math.min(now - last, 250) / 1000;
  last = now;
  drawAll();
  requestAnimationFrame(tick);
}

function play(on) {
  const button = document.getElementById("play");
  playing = on;
  last = null;
  button.textContent = on ? "Pause" : "Play";
  button.setAttribute("aria-label", on ? "pause the animations" : "play the animations");
  if (on) requestAnimationFrame(tick);
}

export function start() {
  document.getElementById("play").addEventListener("click", () => play(!playing));
  for (const button of document.querySelectorAll("#player [data-step]")) {
    button.addEventListener("click", () => {
      play(false);
      clock += Number(button.dataset.step) / Math.max(1, ...[...animations].map(({ sheet }) => sheet.fps));
      drawAll();
    });
  }
  play(playing);
}

// Return a box that plays a sheet of the API; `zoom` is the largest number of screen pixels per pixel.
export function animate(sheet, zoom = 2) {
  const canvas = document.createElement("canvas");
  canvas.width = sheet.width * SHARP;
  canvas.height = sheet.height * SHARP;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", sheet.alt);
  const box = document.createElement("div");
  box.className = "clip";
  box.style.setProperty("max-width", `${sheet.width * zoom}px`);
  box.append(canvas);
  const animation = { sheet, canvas, image: new Image(), ready: false, seen: false, shown: -1 };
  animation.image.src = sheet.uri;
  animation.image.decode().then(() => {
    animation.ready = true;
    box.dataset.ready = "yes";
    draw(animation);
  }).catch(() => canvas.setAttribute("aria-label", `${sheet.alt} (cannot be shown)`));
  animations.add(animation);
  document.getElementById("player").hidden = false;
  return box;
}
