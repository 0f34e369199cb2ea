// Transfer: who is seen in one clip does what is done in another.

import { form, post } from "./api.js";
import { Slot } from "./donor.js";
import { el, slider } from "./dom.js";
import { Outcome } from "./outcome.js";
import { firstClips } from "./first_clips.js";
import { number } from "./state.js";

export const title = "Transfer";
export const lede = "Two clips: who is seen in the first does what is done in the second. Nothing of an upload is kept.";

export function mount(root, { model, values, left, keep }) {
  let frames = number(values, "frames", model.clip_frames);
  let waiting = null;
  const changed = () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 0);
  };
  const who = new Slot({ title: "Who", hint: "gives the identity; may be a picture", accept: `${model.accepts},image/*`, model, changed });
  const how = new Slot({ title: "What", hint: "gives the action", accept: model.accepts, model, changed });
  const content = (format) => form({ ...who.fields("who"), ...how.fields("how"), frames, format });
  const outcome = new Outcome({ title: "Result", path: "transfer", content, model, left });
  const length = slider("Frames", {
    min: 2, max: Math.max(64, frames), step: 1, value: frames,
    change: (value) => {
      frames = value;
      clearTimeout(waiting);
      waiting = setTimeout(update, 150);
    },
  });
  outcome.root.append(length);
  root.append(el("div", { class: "three" }, who.root, how.root, outcome.root));

  async function update() {
    await outcome.run(async (signal) => {
      const answer = await post("transfer", content(), signal).catch((error) => {
        // A refused upload is not sent again: the slot keeps the clip that it had.
        if (!signal.aborted) for (const slot of [who, how]) slot.file = null;
        throw error;
      });
      if (signal.aborted) return answer.result;
      who.show(answer.identity);
      how.show(answer.action);
      keep({ who: who.reference, how: how.reference, frames: frames === model.clip_frames ? null : frames });
      return answer.result;
    });
  }

  firstClips(model).then(([first, second]) => {
    who.reference = values.get("who") ?? first;
    how.reference = values.get("how") ?? second;
    if (!left.aborted) update();
  });
}
