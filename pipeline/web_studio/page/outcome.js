// A generated clip with its downloads and its link, and requests of which only the newest counts.

import { Refused, download } from "./api.js";
import { animate } from "./player.js";
import { announce, button, el, problem } from "./dom.js";

export class Outcome {
  // `content(format)` returns what to post to `path` for a media file.
  constructor({ title, path, content, model, left, zoom = 4 }) {
    Object.assign(this, { path, content, zoom });
    this.picture = el("div", { class: "result", "aria-busy": "false" });
    this.notes = el("div", {});
    const media = (format) => button(format.toUpperCase(), () => this.#save(format), { "aria-label": `download as ${format.toUpperCase()}` });
    this.root = el(
      "section", { class: "panel outcome", "aria-label": title },
      el("h2", {}, title), this.picture, this.notes,
      el("div", { class: "row" }, model.formats.map(media), button("Copy link", (event) => this.#link(event.currentTarget))),
    );
    left.addEventListener("abort", () => this.running?.abort());
  }

  // Show the sheet that `work(signal)` returns; a call during another replaces it.
  async run(work) {
    this.running?.abort();
    const own = (this.running = new AbortController());
    this.picture.setAttribute("aria-busy", "true");
    if (!this.picture.firstChild) this.picture.append(el("p", { class: "soft" }, "Computing…"));
    try {
      const sheet = await work(own.signal);
      if (own.signal.aborted) return;
      this.picture.replaceChildren(animate(sheet, this.zoom));
      this.notes.replaceChildren();
      announce(`ready: ${sheet.alt}`);
    } catch (error) {
      if (own.signal.aborted) return;
      if (!(error instanceof Refused)) throw error;
      this.picture.querySelector("p")?.remove();
      this.notes.replaceChildren(problem(error.message));
    }
    this.picture.setAttribute("aria-busy", "false");
  }

  async #save(format) {
    try {
      await download(this.path, this.content(format), `vdsm-${this.path}.${format}`);
    } catch (error) {
      this.notes.replaceChildren(problem(error.message));
    }
  }

  async #link(pressed) {
    try {
      await navigator.clipboard.writeText(location.href);
      pressed.textContent = "Copied";
      setTimeout(() => (pressed.textContent = "Copy link"), 2000);
    } catch {
      const input = el("input", { type: "text", readonly: true, value: location.href, "aria-label": "link to this result" });
      input.value = location.href;
      this.notes.replaceChildren(input);
      input.select();
    }
  }
}
