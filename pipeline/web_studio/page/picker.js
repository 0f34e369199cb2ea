// A dialog to choose one or several stored clips.

import { button, el } from "./dom.js";
import { clipList } from "./clip_list.js";

// Return a promise of the reference of the chosen clip, or null.
export function choose(model, title) {
  return new Promise((done) => {
    let chosen = null;
    const close = button("Close", () => dialog.close());
    const list = clipList(model, {
      action: (entry) => {
        chosen = entry.of;
        dialog.close();
      },
    });
    const dialog = el(
      "dialog", { class: "panel", "aria-label": `${title}: choose a clip` },
      el("div", { class: "row spread" }, el("h2", {}, `${title}: choose a clip`), close), list.root,
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(chosen);
    });
    document.body.append(dialog);
    dialog.showModal();
    list.load();
  });
}
