// Runs: which there are, their curves while they train, and their evaluations side by side.

import { get } from "./api.js";
import { el, problem } from "./dom.js";
import { animate } from "./player.js";

export const title = "Runs";
export const lede = "Curves of trainings, live, and evaluations side by side.";
const LIVE_MS = 3000;
const MOST = 8;

export function mount(root, { model, values, left, keep }) {
  if (!model.has_runs) {
    root.append(el("p", { class: "absent" }, "There are no runs to show. Start vdsm studio with --runs RUNS."));
    return;
  }
  let chosen = values.getAll("name");
  const list = el("fieldset", { class: "choice", "aria-busy": "true" });
  const notes = el("div", {});
  const curves = el("div", { class: "charts" });
  const steps = el("p", { class: "small soft", "aria-live": "off" });
  const compared = el("div", {});
  root.append(list, notes, el("h2", {}, "Curves"), steps, curves, compared);
  let shown = "";

  async function update() {
    const names = chosen;
    keep({ name: names });
    notes.replaceChildren();
    compared.replaceChildren();
    shown = "";
    await live(names);
    if (names.length) await compare(names);
  }

  async function live(names) {
    if (left.aborted || names !== chosen) return;
    if (!names.length) {
      curves.replaceChildren(el("p", { class: "absent" }, "Choose one or several runs."));
      return;
    }
    try {
      const found = await get("runs/curves", { name: names }, left);
      const text = JSON.stringify(found);
      if (names === chosen && text !== shown) {
        shown = text;
        steps.textContent = Object.entries(found.steps).map(([name, step]) => `${name}: step ${step}`).join(" · ");
        curves.replaceChildren(...(found.charts.length ? found.charts.map(chart) : [el("p", { class: "absent" }, "No curves.")]));
      }
    } catch (error) {
      if (!left.aborted) notes.replaceChildren(problem(error.message));
    }
    setTimeout(() => (document.hidden ? addEventListener("visibilitychange", () => live(names), { once: true }) : live(names)), LIVE_MS);
  }

  async function compare(names) {
    const evaluated = names.filter((name) => entries[name]?.has_report);
    if (!evaluated.length || names !== chosen) return;
    try {
      const found = await get("runs/compare", { name: evaluated }, left);
      if (names !== chosen) return;
      const head = (first) => el("thead", {}, el("tr", {}, el("th", { scope: "col" }, first), evaluated.map((name) => el("th", { scope: "col" }, name))));
      const table = (label, first, rows) => el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": label },
        el("table", { class: "compare" }, head(first), el("tbody", {}, rows)));
      const groups = [...new Set(found.rows.map((metric) => metric.group))];
      const row = (metric) => el("tr", {}, el("th", { scope: "row" }, metric.title), metric.values.map((value, number) =>
        el("td", { class: metric.best === number ? "best" : "" }, value, el("small", {}, metric.intervals[number]))));
      const settings = Object.entries(found.settings).map(([name, all]) =>
        el("tr", {}, el("th", { scope: "row" }, name), all.map((value) => el("td", {}, value))));
      compared.replaceChildren(
        el("h2", {}, "Evaluations"), ...found.notes.map(problem),
        el("div", { class: "animations" }, Object.entries(found.animations).map(([name, sheet]) =>
          el("figure", {}, el("figcaption", { class: "over" }, name), animate(sheet, 1)))),
        ...groups.map((group) => {
          const rows = found.rows.filter((metric) => metric.group === group);
          const shown = table(group || "metrics", "metric", rows.map(row));
          return group ? el("details", {}, el("summary", {}, `${group} (${rows.length})`), shown) : shown;
        }),
        ...(settings.length ? [el("h2", {}, "Settings that differ"), table("settings that differ", "setting", settings)] : []),
      );
    } catch (error) {
      if (!left.aborted) compared.replaceChildren(el("h2", {}, "Evaluations"), problem(error.message));
    }
  }

  const entries = {};
  get("runs", {}, left).then((found) => {
    for (const entry of found) entries[entry.name] = entry;
    if (!chosen.length && found.length) chosen = [found[0].name];
    list.append(el("legend", {}, "Runs"), ...found.map(({ name }) => {
      const box = el("input", { type: "checkbox", value: name, onchange: () => {
        const others = chosen.filter((other) => other !== name);
        chosen = box.checked ? [...others, name].slice(-MOST) : others;
        for (const one of list.querySelectorAll("input")) one.checked = chosen.includes(one.value);
        update();
      } });
      box.checked = chosen.includes(name);
      return el("label", {}, box, el("span", {}, name));
    }));
    if (!found.length) list.append(el("p", { class: "absent" }, "The folder holds no runs yet."));
    list.setAttribute("aria-busy", "false");
    update();
  }, (error) => left.aborted || notes.append(problem(error.message)));
}

// The server draws the charts, with names of lines as text only.
function chart({ title, svg, legend }) {
  const drawing = new DOMParser().parseFromString(svg, "text/html").querySelector("svg");
  const dashes = legend.map(([style, name]) => {
    const dash = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    dash.setAttribute("class", "dash");
    dash.setAttribute("viewBox", "0 0 24 6");
    dash.setAttribute("aria-hidden", "true");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("class", style);
    line.setAttribute("points", "0,3 24,3");
    dash.append(line);
    return el("span", {}, dash, name);
  });
  return el("figure", {}, el("figcaption", { class: "over" }, title), drawing, el("p", { class: "legend" }, dashes));
}
