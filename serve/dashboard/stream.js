// Changes to events as they happen: server-sent events, or polling where no connection is free.

import { get, pathOf } from "./api.js";
import { takeLine } from "./lines.js";

const AGAIN_MS = 3000;
const POLL_MS = 5000;
const QUIET_MS = 60000; // a silent stream is checked against a page this often

export class Stream {
  /**
   * @param onEvent called with each event that changed.
   * @param onCatchUp called when changes may have been missed: the newest page has to be requested.
   * @param onState called with "live", "polling" or "waiting".
   */
  constructor({ onEvent, onCatchUp, onState }) {
    this.onEvent = onEvent;
    this.onCatchUp = onCatchUp;
    this.onState = onState;
    this.source = null;
    this.release = null;
    this.timer = null;
    setInterval(() => { if (this.source !== null) this.onCatchUp(); }, QUIET_MS);
  }

  /** Connects, and keeps connecting. */
  async start() {
    this.stop();
    const turn = (this.turn = Symbol("turn"));
    const release = await takeLine();
    if (turn !== this.turn) {
      release?.();
      return;
    }
    if (release === null) {
      this.onState("polling");
      this.onCatchUp();
      this.timer = setTimeout(() => this.start(), POLL_MS);
      return;
    }
    this.release = release;
    this.source = new EventSource(pathOf("events", "stream"));
    this.source.addEventListener("open", () => {
      this.onState("live");
      this.onCatchUp(); // what happened between the page and now
    });
    this.source.addEventListener("reset", () => this.onCatchUp());
    this.source.addEventListener("message", ({ data }) => this.onEvent(JSON.parse(data)));
    this.source.addEventListener("error", () => {
      this.onState("waiting");
      if (this.source?.readyState === EventSource.CLOSED) this.startLater();
    });
  }

  /** Disconnects. */
  stop() {
    this.turn = null;
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    this.release?.();
    this.release = null;
  }

  startLater() {
    this.stop();
    const turn = (this.turn = Symbol("turn"));
    this.timer = setTimeout(async () => {
      try {
        await get(pathOf("events"), { limit: 1 }); // distinguishes a missing token from a restart
      } catch (error) {
        if (error.status === 401) return; // the sign-in starts us again
      }
      if (turn === this.turn) this.start();
    }, AGAIN_MS);
  }
}
