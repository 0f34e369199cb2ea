// A small picture of a clip that a result is made from.

import { animate } from "./player.js";
import { el, problem } from "./dom.js";
import { nameOf, readingOf } from "./donor.js";

export function chip(reference, left, ...controls) {
  const picture = el("div", { class: "thumb" });
  const notes = el("div", {});
  readingOf(reference, left).then(
    (reading) => {
      picture.append(animate(reading.clip ?? reading.reconstruction, 1.2));
      name.textContent = nameOf(reference);
      if (reading.warning) notes.append(el("span", { class: "unlike", title: reading.warning }, "unlike the training data"));
    },
    (error) => left.aborted || notes.append(problem(error.message)),
  );
  const name = el("span", { class: "name" }, nameOf(reference));
  return el("li", { class: "chip" }, picture, name, notes, controls);
}
