// Dataset: clips by label, pairs that look alike, inputs that were rejected.

import { get } from "./api.js";
import { clipList } from "./clip_list.js";
import { button, el, problem } from "./dom.js";
import { animate } from "./player.js";

export const title = "Dataset";
export const lede = "The clips, by label; the training clips that look alike; and the inputs that gave none.";
const PAIRS = 12;
const PARTS = { clips: "Clips", pairs: "Pairs that look alike", rejects: "Rejected inputs" };

export function mount(root, { model, values, left, keep }) {
  const place = el("div", {});
  const tabs = Object.entries(PARTS).map(([name, text]) => button(text, () => show(name), { "data-part": name }));
  root.append(el("div", { class: "row", role: "group", "aria-label": "what to show" }, tabs), place);

  function show(part, fields = new URLSearchParams()) {
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.part === part));
    keep({ part });
    place.replaceChildren();
    ({ clips, pairs, rejects })[part](fields);
  }

  function clips(fields) {
    if (!model.collections.length) {
      place.append(absent("There are no clips to show. Start vdsm studio with --data DATA."));
      return;
    }
    const named = fields.getAll("label").map((one) => [one.slice(0, one.indexOf(":")), one.slice(one.indexOf(":") + 1)]);
    const kinds = model.collections.map((one) => one.kind);
    const kind = kinds.includes(fields.get("kind")) ? fields.get("kind") : kinds[0];
    const list = clipList(model, {
      kind, filters: Object.fromEntries(named), wanted: "use as identity:",
      changed: (chosen, label) => keep({ part: "clips", kind: chosen, label }),
      action: (entry) => (location.hash = `transfer?who=${encodeURIComponent(entry.of)}`),
    });
    place.append(el("p", { class: "small soft" }, "A click on a clip opens it in Transfer."), list.root);
    list.load();
  }

  function pairs() {
    let offset = 0;
    const facts = el("div", { class: "small soft" });
    const list = el("ul", { class: "pairs" });
    const more = button("More pairs", load);
    place.append(facts, list, more);
    async function load() {
      await guarded(list, async () => {
        const page = await get("pairs", { offset, limit: PAIRS }, left);
        offset += page.pairs.length;
        facts.replaceChildren(...page.facts.map((text) => el("p", {}, text)));
        list.append(...page.pairs.map(({ first, second, distance }) =>
          el("li", { class: "card" }, el("div", { class: "pair" }, animate(first.clip, 1.5), animate(second.clip, 1.5)),
            el("span", { class: "small" }, `${first.key} and ${second.key}`),
            el("span", { class: "small soft" }, `distance ${distance.toFixed(3)}`))));
        if (!page.total) list.append(el("li", { class: "absent" }, "No two training clips look alike enough."));
        more.hidden = offset >= page.total;
      });
    }
    load();
  }

  function rejects() {
    guarded(place, async () => {
      const page = await get("rejects", {}, left);
      if (!page.total) {
        place.append(absent("No input was rejected."));
        return;
      }
      const reasons = Object.entries(page.reasons).map(([reason, count]) => el("li", {}, `${reason}: ${count}`));
      const columns = ["path", "reason", "where", "clips", "split"];
      const line = (record) => el("tr", {}, columns.map((name, number) =>
        number ? el("td", {}, String(record[name])) : el("th", { scope: "row" }, record[name])));
      place.append(el("ul", {}, reasons), el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "rejected inputs" },
        el("table", {}, el("thead", {}, el("tr", {}, columns.map((name) => el("th", { scope: "col" }, name)))),
          el("tbody", {}, page.rejects.map(line)))));
    });
  }

  async function guarded(box, work) {
    box.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      if (!left.aborted) place.append(problem(error.message));
    }
    box.setAttribute("aria-busy", "false");
  }

  const part = values.get("part");
  show(part in PARTS ? part : "clips", values);
}

function absent(text) {
  return el("p", { class: "absent" }, text);
}
