// Grid: several identities in columns, several actions in rows, all in step.

import { post } from "./api.js";
import { chip } from "./chip.js";
import { chooser, nameOf } from "./donor.js";
import { button, el, problem, slider } from "./dom.js";
import { firstClips } from "./first_clips.js";
import { Outcome } from "./outcome.js";
import { number } from "./state.js";

export const title = "Grid";
export const lede = "Every identity, in columns, performs every action, in rows.";
const MOST = 8;

export function mount(root, { model, values, left, keep }) {
  const state = { who: values.getAll("who"), how: values.getAll("how"), frames: number(values, "frames", model.clip_frames) };
  const lists = { who: list("who", "Identities"), how: list("how", "Actions") };
  const content = (format) => ({ identities: state.who, actions: state.how, frames: state.frames, format });
  const outcome = new Outcome({ title: "Matrix", path: "grid", content, model, left, zoom: 2 });
  let waiting = null;
  outcome.root.append(slider("Frames", {
    min: 2, max: Math.max(64, state.frames), step: 1, value: state.frames,
    change: (value) => {
      state.frames = value;
      clearTimeout(waiting);
      waiting = setTimeout(update, 200);
    },
  }));
  root.append(el("div", { class: "two" }, el("div", { class: "stack" }, lists.who.root, lists.how.root), outcome.root));

  function list(side, name) {
    const chips = el("ul", { class: "chips" });
    const notes = el("div", {});
    const take = (reference) => {
      if (state[side].length === MOST) notes.replaceChildren(problem(`At most ${MOST} clips; remove one first.`));
      else if (!state[side].includes(reference)) {
        state[side].push(reference);
        draw();
        update();
      }
    };
    const failed = (text) => notes.replaceChildren(problem(text));
    const draw = () => {
      notes.replaceChildren();
      chips.replaceChildren(...state[side].map((reference) => chip(reference, left, button("Remove", () => {
        state[side] = state[side].filter((other) => other !== reference);
        draw();
        update();
      }, { "aria-label": `remove ${nameOf(reference)} from ${name}`, disabled: state[side].length === 1 }))));
    };
    const panel = el("section", { class: "panel", "aria-label": name }, el("h2", {}, name), chips, notes,
      chooser({ model, title: name, take, failed, left }));
    return { root: panel, draw };
  }

  function update() {
    keep({ who: state.who, how: state.how, frames: state.frames === model.clip_frames ? null : state.frames });
    outcome.run(async (signal) => (await post("grid", content(), signal)).grid);
  }

  firstClips(model, 3).then((first) => {
    if (left.aborted) return;
    if (!state.who.length) state.who = first;
    if (!state.how.length) state.how = first;
    lists.who.draw();
    lists.how.draw();
    update();
  });
}
