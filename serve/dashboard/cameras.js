// The wall of camera tiles: polls the cameras' status and sets how live each tile is.

import { get, pathOf, serverNow } from "./api.js";
import { element, setText, setNotice } from "./element.js";
import { Picture, PictureMode } from "./picture.js";
import { duration } from "./times.js";
import { count, short, showsPictures, silence, stateName } from "./words.js";

const POLL_MS = 2000;
const STALE_S = 15;
const GAP = 12;
const FOOT = 62; // height of a tile below its picture
const NARROWEST = 250;

export class Cameras {
  /** @param onOpen called with a camera's id when its tile is chosen. */
  constructor({ onOpen }) {
    this.onOpen = onOpen;
    this.section = document.getElementById("cameras");
    this.wall = document.getElementById("wall");
    this.notice = document.getElementById("cameras-notice");
    this.total = document.getElementById("cameras-count");
    this.tiles = new Map();
    this.statuses = [];
    this.paused = false;
    this.timer = null;
    this.listeners = new Set();
    this.watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) entry.target.tile.setInView(entry.isIntersecting);
    });
    new ResizeObserver(() => this.fit()).observe(this.section);
    document.addEventListener("visibilitychange", () => {
      this.adjust();
      if (!document.hidden) this.refresh();
    });
  }

  /** Calls back with all statuses whenever they were received; with null when a request failed. */
  whenKnown(listener) {
    this.listeners.add(listener);
  }

  /** Stops all tiles' pictures, whose connections an open dialog needs, or continues them. */
  pause(paused) {
    this.paused = paused;
    this.adjust();
  }

  /** Requests the statuses now, and again every 2 s while the page is visible. */
  async refresh() {
    clearTimeout(this.timer);
    this.timer = null;
    const turn = (this.turn = Symbol("turn"));
    try {
      const { cameras } = await get(pathOf("cameras"));
      if (turn !== this.turn) return;
      this.statuses = cameras;
      this.show(cameras);
      this.announce(cameras);
    } catch (error) {
      if (turn !== this.turn) return;
      const known = this.tiles.size > 0;
      this.section.classList.toggle("stale", known);
      const words = error.status === 401
        ? "Sign in to see the cameras."
        : `The cameras cannot be shown: ${error.message}.`;
      setNotice(this.notice, known ? "" : words);
      this.announce(null);
    }
    if (!document.hidden) this.timer = setTimeout(() => this.refresh(), POLL_MS);
  }

  announce(statuses) {
    for (const listener of this.listeners) listener(statuses);
  }

  show(cameras) {
    this.section.classList.remove("stale");
    setNotice(
      this.notice,
      cameras.length ? "" : "There are no cameras yet. Add one to the configuration file.",
    );
    const playing = cameras.filter((camera) => camera.state === "playing").length;
    const all = playing === cameras.length;
    setText(this.total, cameras.length ? (all ? `${playing} playing` : `${playing} of ${cameras.length} playing`) : "");
    const ids = new Set(cameras.map((camera) => camera.id));
    for (const [id, tile] of this.tiles) if (!ids.has(id)) this.drop(id, tile);
    for (const camera of cameras) {
      let tile = this.tiles.get(camera.id);
      if (tile === undefined) {
        tile = new Tile(camera.id, () => this.onOpen(camera.id));
        this.tiles.set(camera.id, tile);
        this.wall.append(tile.node);
        this.watcher.observe(tile.node);
      }
      tile.update(camera);
    }
    this.adjust();
    this.fit();
  }

  drop(id, tile) {
    this.watcher.unobserve(tile.node);
    tile.remove();
    this.tiles.delete(id);
  }

  adjust() {
    const visible = !document.hidden && !this.paused;
    for (const tile of this.tiles.values()) tile.setVisible(visible);
  }

  /** As many columns as make the pictures largest without scrolling; else, as many as fit across. */
  fit() {
    const width = this.wall.clientWidth;
    // In the one-column layout the section is as high as the wall, so its height bounds nothing.
    const bounded = getComputedStyle(this.section).overflowY === "auto";
    const height = bounded
      ? this.section.clientHeight - this.wall.offsetTop + this.section.offsetTop - GAP
      : 0;
    const number = this.tiles.size;
    if (!number || !width) return;
    const across = (columns) => (width - GAP * (columns - 1)) / columns;
    let best = { columns: Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP))), wide: 0 };
    for (let columns = 1; columns <= number; columns += 1) {
      const rows = Math.ceil(number / columns);
      const high = (height - GAP * (rows - 1)) / rows - FOOT;
      const wide = Math.min(across(columns), (high * 16) / 9);
      if (wide >= NARROWEST && wide > best.wide) best = { columns, wide };
    }
    const columns = Math.min(best.columns, number);
    const high = ((best.wide || across(columns)) * 9) / 16;
    this.wall.style.setProperty("--columns", columns);
    this.wall.style.setProperty("--high", `${Math.floor(high)}px`);
  }
}

class Tile {
  constructor(id, onOpen) {
    this.inView = false;
    this.visible = true;
    this.playing = false;
    this.lastSeen = { at: null, since_ms: performance.now() };
    this.canvas = element("canvas", { width: 16, height: 9, "aria-hidden": "true" });
    this.message = element("span", { className: "message" });
    this.recording = element("span", { className: "rec", hidden: true }, "REC");
    this.age = element("span", { className: "age", title: "Age of this picture", hidden: true });
    this.pill = element("span", { className: "pill" });
    this.people = element("span", { className: "people" });
    this.figures = element("span", { className: "figures muted" });
    this.button = element(
      "button",
      { type: "button", className: "tile", on: { click: onOpen } },
      element("span", { className: "screen" }, this.canvas, this.message, this.recording, this.age),
      element(
        "span",
        { className: "foot" },
        element("span", { className: "line" }, element("strong", { className: "name" }, id), this.pill),
        element("span", { className: "line" }, this.people, this.figures),
      ),
    );
    this.node = element("li", {}, this.button);
    this.node.tile = this;
    this.fault = null;
    this.picture = new Picture(this.canvas, id, {
      onPicture: ({ live }) => {
        this.button.dataset.pictured = "yes";
        this.button.dataset.live = live ? "yes" : "no";
        this.picture.showAge(this.age);
      },
      onFault: (words) => {
        this.fault = words;
        this.speak();
      },
    });
  }

  update(status) {
    this.status = status;
    this.playing = showsPictures(status);
    if (status.last_frame_at !== this.lastSeen.at) {
      this.lastSeen = { at: status.last_frame_at, since_ms: performance.now() };
    }
    this.button.dataset.state = status.state;
    this.pill.dataset.state = status.state;
    setText(this.pill, stateName(status.state));
    this.recording.hidden = status.recording !== true;
    setText(this.people, this.playing ? count(status.people_in_view, "person", "people") : "–");
    this.people.classList.toggle("some", this.playing && status.people_in_view > 0);
    const lost = Object.values(status.dropped ?? {}).reduce((sum, number) => sum + number, 0);
    setText(this.figures, `${rate(status.fps_in)} in · ${rate(status.fps_processed)} checked · ${short(lost)} dropped`);
    this.figures.title =
      "Pictures a second that arrive, and of these how many are searched for people; " +
      "pictures dropped since the start";
    this.speak();
    this.picture.showAge(this.age);
    this.adjust();
  }

  /** Shows over the picture why nothing moves. */
  speak() {
    const status = this.status;
    if (status === undefined) return;
    const still_s = (performance.now() - this.lastSeen.since_ms) / 1000;
    let words = silence(status.state);
    if (this.playing && still_s > STALE_S) words = `No new picture for ${duration(still_s)}`;
    const last_ms = Date.parse(status.last_frame_at ?? "");
    if (words && !this.playing && status.state !== "ended" && !Number.isNaN(last_ms)) {
      words += ` Last picture ${duration((serverNow() - last_ms) / 1000)} ago.`;
    }
    if (!words && this.fault && !this.button.dataset.pictured) words = "Waiting for a picture …";
    setNotice(this.message, words);
    this.button.setAttribute("aria-label", this.summary(words));
  }

  summary(words) {
    const { id, state } = this.status;
    const people = this.playing
      ? `${count(this.status.people_in_view, "person", "people")} in view`
      : words;
    const recording = this.status.recording === true ? ", recording" : "";
    return `Camera ${id}: ${stateName(state)}, ${people}${recording}. Open`;
  }

  setInView(inView) {
    this.inView = inView;
    this.adjust();
  }

  setVisible(visible) {
    this.visible = visible;
    this.adjust();
  }

  adjust() {
    const off = this.status?.state === "disabled" || this.status?.state === "stopped";
    if (!this.visible || off) this.picture.setMode(PictureMode.NOTHING);
    else if (this.inView && this.playing) this.picture.setMode(PictureMode.LIVE);
    else this.picture.setMode(PictureMode.SINGLE);
  }

  remove() {
    this.picture.setMode(PictureMode.NOTHING);
    this.node.remove();
  }
}

/** "25 fps", "4.8 fps", or a dash while it is unknown. */
export function rate(fps) {
  if (fps === null || fps === undefined) return "–";
  return `${fps < 10 ? Math.round(fps * 10) / 10 : Math.round(fps)} fps`;
}
