// Change one trait of an identity: a slider from what the identity shows of it to one of its values.

import { get } from "./api.js";
import { el, problem, select, slider } from "./dom.js";

// `state` has `factor`, `towards` and `amount`, which the panel changes and then calls `changed`.
export function traitPanel({ state, left, changed }) {
  const fields = el("div", { class: "row fields" });
  const place = el("div", {});
  const soft = el("p", { class: "soft small" }, "Looking for traits…");
  const root = el("section", { class: "panel", "aria-label": "One trait", "aria-busy": "true" }, el("h2", {}, "One trait"), soft, fields, place);

  const format = (value) => (value ? `${Math.round(100 * value)}% ${state.towards}` : "as it is");

  function draw(factors) {
    const factor = factors.find((one) => one.name === state.factor) ?? factors[0];
    state.factor = factor.name;
    if (!factor.towards.includes(state.towards)) state.towards = factor.towards.at(-1);
    const change = (name) => (value) => {
      state[name] = value;
      draw(factors);
      if (state.amount > 0) changed();
    };
    fields.replaceChildren(
      select("change", factors.map((one) => one.name), factor.name, change("factor")),
      select("towards", factor.towards, state.towards, change("towards")),
    );
    place.replaceChildren(slider("trait", {
      min: 0, max: 1, step: 0.01, value: state.amount, format,
      change: (value) => {
        state.amount = value;
        changed();
      },
    }));
  }

  get("factors", {}, left).then(({ labelled, factors }) => {
    soft.textContent = labelled
      ? "The identity changes in this alone; the action and its other traits stay."
      : "The clips have no labels: these are the directions in which identities differ most.";
    if (factors.length) draw(factors);
    else soft.textContent = "The model's identities do not differ.";
    root.setAttribute("aria-busy", "false");
  }, (error) => {
    if (left.aborted) return;
    soft.replaceWith(problem(error.message));
    root.setAttribute("aria-busy", "false");
  });
  return root;
}
