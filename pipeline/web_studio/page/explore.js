// Explore: between two identities, between two actions, samples of both codes, and rollouts of any length.

import { post } from "./api.js";
import { chip } from "./chip.js";
import { chooser } from "./donor.js";
import { el, problem, slider } from "./dom.js";
import { firstClips } from "./first_clips.js";
import { Outcome } from "./outcome.js";
import { number } from "./state.js";
import { traitPanel } from "./trait.js";

export const title = "Explore";
export const lede = "Move between two identities and two actions, change one trait alone, sample new codes, and let the clip continue.";
const LONGEST = 128;

export function mount(root, { model, values, left, keep }) {
  const state = {
    who: values.getAll("who"), how: values.getAll("how"),
    identity: number(values, "identity", 0.5), action: number(values, "action", 0.5),
    frames: number(values, "frames", model.clip_frames),
    factor: values.get("factor"), towards: values.get("towards"), amount: number(values, "amount", 0),
  };
  const walk = () => (state.amount > 0 && state.factor ? { factor: state.factor, towards: state.towards, amount: state.amount } : null);
  const content = (format) => ({ static: parts("who", "identity"), dynamics: parts("how", "action"), walk: walk(), frames: state.frames, format });
  const outcome = new Outcome({ title: "Result", path: "explore", content, model, left });
  outcome.root.append(range("Frames", "frames", { min: 2, max: Math.max(LONGEST, state.frames), step: 1 }));
  let waiting = null;
  const panels = { who: panel("who", "Identities", "identity"), how: panel("how", "Actions", "action") };
  const trait = traitPanel({ state, left, changed: soon });
  root.append(el("div", { class: "two follow" }, el("div", { class: "stack" }, panels.who.root, trait, panels.how.root), outcome.root));

  function parts(side, share) {
    const [first, second] = state[side];
    return [{ of: first, weight: 1 - state[share] }, { of: second, weight: state[share] }];
  }

  function range(text, name, { min, max, step, format }) {
    const change = (value) => {
      state[name] = value;
      soon();
    };
    return slider(text, { min, max, step, value: state[name], format, change });
  }

  function soon() {
    clearTimeout(waiting);
    waiting = setTimeout(update, 60);
  }

  function panel(side, name, share) {
    const chips = el("ul", { class: "chips ends" });
    const notes = el("div", {});
    const format = (value) => `${Math.round(100 * (1 - value))}% first, ${Math.round(100 * value)}% second`;
    const draw = () => {
      notes.replaceChildren();
      chips.replaceChildren(...state[side].map((reference, end) => {
        const title = `${name}, ${end ? "second" : "first"}`;
        const take = (chosen) => {
          state[side][end] = chosen;
          draw();
          update();
        };
        return chip(reference, left, chooser({ model, title, take, failed: (text) => notes.replaceChildren(problem(text)), left }));
      }));
    };
    const root = el("section", { class: "panel", "aria-label": name }, el("h2", {}, name), chips, notes,
      range(`${share} between first and second`, share, { min: 0, max: 1, step: 0.01, format }));
    return { root, draw };
  }

  function update() {
    const { factor, towards, amount } = walk() ?? {};
    keep({ ...state, factor, towards, amount, frames: state.frames === model.clip_frames ? null : state.frames });
    outcome.run(async (signal) => (await post("explore", content(), signal)).result);
  }

  firstClips(model, 2).then((first) => {
    if (left.aborted) return;
    for (const side of ["who", "how"]) if (state[side].length !== 2) state[side] = [...first];
    panels.who.draw();
    panels.how.draw();
    update();
  });
}
