// The frame of the page: which view is shown, and the address that restores it.

import { get } from "./api.js";
import { announce, el, problem } from "./dom.js";
import { start } from "./player.js";
import { read, write } from "./state.js";
import * as transfer from "./transfer.js";
import * as grid from "./grid.js";
import * as explore from "./explore.js";
import * as dataset from "./dataset.js";
import * as runs from "./runs.js";

const views = { transfer, grid, explore, dataset, runs };
const main = document.getElementById("main");
const links = {};
let model = null;
let leave = null;

function show() {
  const { page, values } = read();
  const name = model.pages.includes(page) ? page : model.pages[0];
  leave?.abort();
  leave = new AbortController();
  for (const [key, link] of Object.entries(links)) {
    if (key === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const view = views[name];
  document.title = `${view.title} · VDSM studio`;
  main.replaceChildren(el("h1", {}, view.title), el("p", { class: "lede" }, view.lede));
  view.mount(main, { model, values, left: leave.signal, keep: (fields) => write(name, fields) });
}

async function begin() {
  const pages = document.getElementById("pages");
  start();
  try {
    model = await get("model");
  } catch (error) {
    main.replaceChildren(el("h1", {}, "VDSM studio"), problem(error.message));
    return;
  }
  for (const name of model.pages) {
    links[name] = el("a", { href: `#${name}` }, views[name].title);
    pages.append(links[name]);
  }
  document.getElementById("model").textContent = `· model ${model.name}`;
  show();
  addEventListener("hashchange", () => {
    show();
    main.focus({ preventScroll: true });
    announce(document.title);
  });
}

begin();
