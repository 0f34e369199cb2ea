// Stored clips by label, page by page.

import { get } from "./api.js";
import { animate } from "./player.js";
import { button, el, problem, select } from "./dom.js";

const PAGE = 24;
const ANY = "";

export function clipList(model, { action, kind = model.collections[0].kind, filters = {}, changed = () => {}, wanted = "choose" }) {
  const state = { kind, filters: { ...filters }, offset: 0 };
  const fields = el("div", { class: "row fields" });
  const count = el("p", { class: "soft small", role: "status" });
  const cards = el("ul", { class: "cards" });
  const more = button("More clips", () => load(true));
  const root = el("div", { class: "clip-list" }, fields, count, cards, more);

  function drawFields() {
    const collection = model.collections.find((one) => one.kind === state.kind);
    const kinds = model.collections.map((one) => [one.kind, `${one.kind} (${one.clips})`]);
    fields.replaceChildren(
      select("Clips", kinds, state.kind, (value) => {
        Object.assign(state, { kind: value, filters: {} });
        drawFields();
        load();
      }),
      ...Object.entries(collection.labels).map(([name, values]) =>
        select(name, [[ANY, "any"], ...values], state.filters[name] ?? ANY, (value) => {
          state.filters[name] = value;
          load();
        }),
      ),
    );
  }

  function card(entry) {
    const labels = Object.entries(entry.labels).map(([name, value]) => `${name} ${value}`).join(", ");
    const content = [animate(entry.clip), el("span", { class: "small" }, entry.key), el("span", { class: "small soft" }, labels)];
    if (!action) return el("li", { class: "card" }, content);
    return el("li", {}, el("button", { type: "button", class: "card", "aria-label": `${wanted} ${entry.key}, ${labels}`, onclick: () => action(entry) }, content));
  }

  async function load(further = false) {
    state.offset = further ? state.offset + PAGE : 0;
    const label = Object.entries(state.filters).filter(([, value]) => value !== ANY).map(([name, value]) => `${name}:${value}`);
    changed(state.kind, label);
    root.setAttribute("aria-busy", "true");
    try {
      const page = await get("clips", { kind: state.kind, label, offset: state.offset, limit: PAGE });
      const found = page.clips.map(card);
      if (further) cards.append(...found);
      else cards.replaceChildren(...found);
      count.textContent = `${page.total} ${page.total === 1 ? "clip" : "clips"}`;
      more.hidden = cards.children.length >= page.total;
    } catch (error) {
      cards.replaceChildren(el("li", {}, problem(error.message)));
    }
    root.setAttribute("aria-busy", "false");
  }

  drawFields();
  return { root, load };
}
