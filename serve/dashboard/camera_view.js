// The larger view of one camera: its picture with its zones, its figures, and its record button.

import { request, get, pathOf } from "./api.js";
import { rate } from "./cameras.js";
import { drawing, element, facts, setText, setNotice } from "./element.js";
import { Picture, PictureMode } from "./picture.js";
import { count, lossName, ruleWords, short, showsPictures, stateName, typeName } from "./words.js";

export class CameraView {
  /**
   * @param onClose called when the view closes.
   * @param onEvents called with a camera's id to show its events.
   */
  constructor({ onClose, onEvents }) {
    this.dialog = document.getElementById("camera-view");
    this.onEvents = onEvents;
    this.id = null;
    this.dialog.addEventListener("close", () => {
      this.picture?.setMode(PictureMode.NOTHING);
      this.id = null;
      onClose();
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    document.addEventListener("visibilitychange", () => this.adjust());
  }

  /** Shows a camera. */
  async open(id) {
    this.id = id;
    this.byHand = false;
    this.build(id);
    if (!this.dialog.open) this.dialog.showModal();
    this.adjust();
    try {
      const { status, settings } = await get(pathOf("cameras", id));
      if (this.id !== id) return;
      this.showZones(settings);
      this.update(status);
      const query = { camera: id, type: "manual", status: "open", limit: 1 };
      const { events } = await get(pathOf("events"), query);
      if (this.id === id && events.length) this.take(events[0]);
    } catch (error) {
      if (this.id === id) setNotice(this.fault, `The details cannot be shown: ${error.message}.`);
    }
  }

  /** Takes the statuses that the wall received. */
  updateFrom(statuses) {
    const status = statuses?.find((one) => one.id === this.id);
    if (status !== undefined && this.dialog.open) this.update(status);
  }

  /** Takes a changed event. A manual recording is an event, and the only recording that can be stopped. */
  take(event) {
    if (event.camera_id !== this.id || event.type !== "manual" || !this.dialog.open) return;
    this.byHand = event.status === "open";
    setText(this.record, this.byHand ? "Stop recording" : "Record now");
  }

  adjust() {
    if (this.id !== null) this.picture.setMode(document.hidden ? PictureMode.NOTHING : PictureMode.LIVE);
  }

  build(id) {
    this.canvas = element("canvas", {
      width: 16, height: 9, role: "img", "aria-label": `Picture of camera ${id}`,
    });
    this.shapes = drawing("svg", {
      viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true",
    });
    this.message = element("span", { className: "message", hidden: true });
    this.age = element("span", { className: "age", title: "Age of this picture", hidden: true });
    this.stage = element("div", { className: "stage" }, this.canvas, this.shapes, this.message, this.age);
    this.pill = element("span", { className: "pill" });
    this.fault = element("p", { className: "fault", role: "alert", hidden: true });
    this.result = element("p", { className: "muted", role: "status", hidden: true });
    this.record = element("button", { type: "button", on: { click: () => this.toggleRecording() } }, "Record now");
    this.figures = element("div");
    this.zones = element("ul", { className: "zones" });
    this.picture = new Picture(this.canvas, id, {
      onPicture: ({ width, height, live }) => {
        this.stage.style.setProperty("--shape", width / height);
        this.stage.dataset.live = live ? "yes" : "no";
        this.message.hidden = true;
        this.picture.showAge(this.age);
      },
      onFault: (words) => { if (words) setNotice(this.message, words); },
    });
    this.dialog.replaceChildren(
      element(
        "div",
        { className: "view-head" },
        element("h2", { id: "camera-view-title" }, id),
        this.pill,
        element("button", {
          type: "button", className: "close", "aria-label": "Close",
          on: { click: () => this.dialog.close() },
        }, "×"),
      ),
      element(
        "div",
        { className: "view-body" },
        element("div", { className: "view-main" }, this.stage),
        element(
          "div",
          { className: "view-side" },
          this.fault,
          element(
            "div",
            { className: "buttons" },
            element("button", {
              type: "button",
              on: { click: () => { this.dialog.close(); this.onEvents(id); } },
            }, "Its events"),
            this.record,
          ),
          this.result,
          this.figures,
          element("h3", {}, "Zones"),
          this.zones,
        ),
      ),
    );
  }

  update(status) {
    this.picture.showAge(this.age);
    this.pill.dataset.state = status.state;
    setText(this.pill, stateName(status.state));
    this.record.disabled = !showsPictures(status);
    const lost = Object.entries(status.dropped ?? {}).filter(([, number]) => number > 0);
    const size = status.width && status.height ? `${status.width} × ${status.height}` : null;
    this.figures.replaceChildren(
      facts([
        ["In view", count(status.people_in_view, "person", "people")],
        ["Trouble", status.state_reason],
        ["Pictures", `${rate(status.fps_in)} arriving, ${rate(status.fps_processed)} checked`],
        ["Dropped", lost.length
          ? lost.map(([cause, number]) => `${short(number)} ${lossName(cause)}`).join(", ")
          : "none"],
        ["Events", String(status.num_events)],
        ["Reconnected", status.reconnects ? count(status.reconnects, "time", "times") : null],
        ["Recording", recordingWords(status)],
        ["Last fault", status.last_error],
        ["Video", [size, status.codec].filter(Boolean).join(", ")],
        ["Source", status.source],
      ]),
    );
  }

  showZones(settings) {
    const zones = settings.zones ?? [];
    const rules = settings.person ? [element("li", {}, zoneText("Whole picture", [settings.person]))] : [];
    this.zones.replaceChildren(...rules, ...zones.map((zone) => this.zoneItem(zone)));
    if (!this.zones.childElementCount) this.zones.append(element("li", { className: "muted" }, "None."));
  }

  zoneItem(zone) {
    const shape = zone.polygon
      ? drawing("polygon", { points: pointsOf(zone.polygon) })
      : drawing("polyline", { points: pointsOf(zone.line) });
    this.shapes.append(shape);
    const mark = (on) => () => shape.classList.toggle("marked", on);
    return element(
      "li",
      { tabIndex: 0, on: { pointerenter: mark(true), pointerleave: mark(false), focus: mark(true), blur: mark(false) } },
      zoneText(zone.id, zone.rules ?? []),
    );
  }

  async toggleRecording() {
    const stop = this.byHand;
    const body = { command: stop ? "stop-recording" : "start-recording" };
    this.record.disabled = true;
    try {
      await request(pathOf("cameras", this.id, "recordings"), { method: "POST", body });
      setNotice(this.result, stop ? "Stopping the recording." : "Recording. It will be among the events.");
    } catch (error) {
      setNotice(this.result, `That did not work: ${error.message}.`);
    }
    this.record.disabled = false;
  }
}

function zoneText(name, rules) {
  return element(
    "div",
    {},
    element("strong", {}, name),
    rules.map((rule) => element(
      "div", { className: "rule" },
      element("span", { className: "badge", data: { type: rule.type } }, typeName(rule.type)),
      element("span", { className: "muted" }, ruleWords(rule)),
    )),
  );
}

function recordingWords({ recording, recording_paused: paused, recording_error: fault, clips }) {
  if (fault) return fault;
  if (paused) return "paused, the disk is nearly full";
  if (recording) return "now";
  return clips ? `${count(clips, "clip", "clips")} so far` : null;
}

function pointsOf(points) {
  return points.map(([x, y]) => `${Number(x)},${Number(y)}`).join(" ");
}
