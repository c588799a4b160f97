// The line that summarises the system's state, from /healthz and the cameras' statuses.

import { health } from "./api.js";
import { element, setText } from "./element.js";
import { count, isWell, showsPictures, stateName } from "./words.js";

const POLL_MS = 5000;
const WORDS = {
  store: {
    name: "Event store",
    ok: "keeps events and finds them",
    failed: "Events cannot be looked up at the moment",
    degraded: "The event store has trouble",
  },
  journal: {
    name: "Event journal",
    ok: "up to date",
    failed: "New events are not being recorded",
    degraded: "Events arrive late or were lost",
  },
  detector: {
    name: "People detection",
    ok: "working",
    failed: "People are not being detected",
    degraded: "People detection has trouble",
  },
  classifier: {
    name: "Theft check",
    ok: "working",
    degraded: "Nobody is being checked for theft",
  },
  cameras: {
    name: "Cameras",
    ok: "all playing",
    failed: "The cameras do not answer",
    degraded: "Not all cameras are playing",
  },
  recording: {
    name: "Recording",
    ok: "working",
    failed: "Video is not being recorded",
    degraded: "Recording video has trouble",
  },
};

export class Health {
  constructor() {
    this.box = document.getElementById("health");
    this.words = document.getElementById("health-words");
    this.parts = document.getElementById("health-parts");
    this.statuses = [];
    this.answer = null;
    this.timer = null;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.refresh(); });
  }

  /** Takes the cameras' statuses, to name those that do not play. */
  learnCameras(statuses) {
    if (statuses === null) return;
    this.statuses = statuses;
    if (this.answer !== null) this.summarise(this.answer);
  }

  /** Requests /healthz now, and again while the page is visible. */
  async refresh() {
    clearTimeout(this.timer);
    const turn = (this.turn = Symbol("turn"));
    try {
      const answer = await health();
      if (turn === this.turn) this.show(answer);
    } catch (error) {
      if (turn === this.turn) {
        this.answer = null;
        this.showSummary("failed", `${error.message}. Trying again …`);
        this.parts.replaceChildren();
      }
    }
    if (turn === this.turn && !document.hidden) {
      this.timer = setTimeout(() => this.refresh(), POLL_MS);
    }
  }

  summarise({ status, parts }) {
    const order = ["failed", "degraded"];
    const ill = Object.entries(parts)
      .filter(([, part]) => part.status !== "ok")
      .sort(([, a], [, b]) => order.indexOf(a.status) - order.indexOf(b.status));
    const faults = ill.map(([name, part]) => this.fault(name, part.status));
    this.showSummary(status, faults.length ? `${faults.join(". ")}.` : this.allWorks());
  }

  show(answer) {
    this.answer = answer;
    this.summarise(answer);
    this.parts.replaceChildren(
      ...Object.entries(answer.parts).map(([name, part]) => element(
        "li", { data: { status: part.status } },
        element("span", { className: "dot", "aria-hidden": "true" }),
        element("strong", {}, WORDS[name]?.name ?? name),
        element("span", { className: "muted" },
          part.detail ?? (part.status === "ok" ? (WORDS[name]?.ok ?? "well") : part.status)),
      )),
    );
  }

  allWorks() {
    const playing = this.statuses.filter((camera) => camera.state === "playing").length;
    return playing
      ? `Everything works. ${count(playing, "camera is", "cameras are")} being watched.`
      : "Everything works.";
  }

  fault(name, status) {
    if (name === "cameras" && status === "degraded") {
      const ill = this.statuses.filter((camera) => !isWell(camera));
      const wrong = ill.every(showsPictures) ? "checked as often as requested" : "playing";
      if (ill.length === 1) return `Camera ${ill[0].id} is not ${wrong} (${stateName(ill[0].state).toLowerCase()})`;
      if (ill.length) {
        const named = ill.slice(0, 3).map((camera) => camera.id).join(", ");
        return `${ill.length} of ${this.statuses.length} cameras are not ${wrong}: ${named}${ill.length > 3 ? " …" : ""}`;
      }
    }
    return WORDS[name]?.[status] ?? `${name}: ${status}`;
  }

  showSummary(status, text) {
    this.box.dataset.status = status;
    setText(this.words, text);
  }
}
