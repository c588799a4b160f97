// One event in the list: a button with picture, sentence, place and time.

import { pathOf, serverNow } from "./api.js";
import { element, setText, setNotice } from "./element.js";
import { ago, full, stamp } from "./times.js";
import { remark, sentence, typeName } from "./words.js";

export class EventRow {
  /** @param onOpen called with the event's id when it is chosen. */
  constructor(event, onOpen) {
    this.thumb = element("span", { className: "thumb", "aria-hidden": "true" });
    this.badge = element("span", { className: "badge" });
    this.open = element("span", { className: "ongoing" }, "ongoing");
    this.words = element("span", { className: "words" });
    this.remark = element("span", { className: "remark" });
    this.where = element("span", { className: "where" });
    this.time = element("time");
    this.video = element("span", { className: "has-clip", title: "Has a video clip" }, "▶ clip");
    this.button = element(
      "button",
      { type: "button", className: "event", on: { click: () => onOpen(this.event.event_id) } },
      this.thumb,
      element(
        "span",
        { className: "body" },
        element("span", { className: "line" }, this.badge, this.open, this.remark, this.video),
        this.words,
        element("span", { className: "line muted" }, this.where, this.time),
      ),
    );
    this.node = element("li", { className: "row" }, this.button);
    this.update(event);
  }

  /** Shows a newer version of the event. */
  update(event) {
    this.event = event;
    this.node.dataset.id = event.event_id;
    this.node.dataset.type = event.type;
    this.badge.dataset.type = event.type;
    setText(this.badge, typeName(event.type));
    this.open.hidden = event.status !== "open";
    this.video.hidden = !event.clip?.uri;
    setText(this.words, sentence(event));
    setNotice(this.remark, remark(event));
    setText(this.where, event.camera_id);
    this.time.dateTime = event.started_at;
    this.time.title = full(Date.parse(event.started_at));
    this.tick();
    this.showThumb();
  }

  /** Updates the words that depend on the present time. */
  tick() {
    const started_ms = Date.parse(this.event.started_at);
    const now_ms = serverNow();
    setText(this.time, `${stamp(started_ms, now_ms)} · ${ago(started_ms, now_ms)}`);
  }

  showThumb() {
    const { event_id, snapshot, status } = this.event;
    // The best picture replaces the first one when the event closes, maybe under the same name.
    const key = snapshot ? `${snapshot.uri} ${status}` : null;
    if (key === this.shown) return;
    this.shown = key;
    if (key === null) {
      this.thumb.replaceChildren();
      return;
    }
    const image = element("img", {
      alt: "", loading: "lazy", decoding: "async", width: 96, height: 60,
      src: `${pathOf("events", event_id, "snapshot")}?of=${status}`,
      on: { error: () => image.remove() },
    });
    this.thumb.replaceChildren(image);
  }
}
