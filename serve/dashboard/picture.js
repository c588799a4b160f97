// One camera's picture on a canvas: live while it is visible and a connection is free, single
// pictures otherwise. Each picture is requested when the one before is drawn, so that a slow page
// shows fewer pictures and never old ones.

import { ApiError, request, pathOf } from "./api.js";
import { setText } from "./element.js";
import { takeLine } from "./lines.js";
import { pictureAge } from "./times.js";

const SINGLE_MS = 1500; // between single pictures, in view
const ASIDE_MS = 20000; // the same, out of view
const AGAIN_MS = 3000; // after an error
const LATE_S = 2; // a picture older than this is marked
const LIVE_AGAIN_MS = 6000; // between attempts to go live

/** What a picture shows: nothing, single pictures, or live ones. */
export const PictureMode = Object.freeze({ NOTHING: "nothing", SINGLE: "single", LIVE: "live" });

export class Picture {
  /**
   * @param canvas drawn on.
   * @param cameraId whose pictures.
   * @param onPicture called after each picture with its size {width, height} and whether it is live.
   * @param onFault called with the reason when there is no picture, with null when one has arrived.
   */
  constructor(canvas, cameraId, { onPicture = () => {}, onFault = () => {} } = {}) {
    this.canvas = canvas;
    this.cameraId = cameraId;
    this.onPicture = onPicture;
    this.onFault = onFault;
    this.mode = PictureMode.NOTHING;
    this.stopping = null;
    this.capturedAt_ms = NaN;
  }

  /** Shows in a node how old the picture is now; hides the node while that is unknown. */
  showAge(node) {
    const age_s = (performance.now() - this.capturedAt_ms) / 1000;
    node.hidden = Number.isNaN(age_s);
    if (node.hidden) return;
    setText(node, pictureAge(age_s));
    node.classList.toggle("late", age_s > LATE_S);
  }

  /** Changes the mode; the requests of the one before are aborted. */
  setMode(mode) {
    if (mode === this.mode) return;
    this.mode = mode;
    this.stopping?.abort();
    this.stopping = null;
    if (mode === PictureMode.NOTHING) return;
    this.stopping = new AbortController();
    this.run(mode, this.stopping.signal);
  }

  async run(mode, signal) {
    let liveAt = 0;
    while (!signal.aborted) {
      let pause_ms = mode === PictureMode.LIVE ? SINGLE_MS : ASIDE_MS;
      try {
        const release = mode === PictureMode.LIVE && Date.now() >= liveAt ? await takeLine() : null;
        if (release !== null) {
          try {
            await this.live(signal);
          } finally {
            release();
          }
          pause_ms = AGAIN_MS;
        } else {
          const answer = await request(pathOf("cameras", this.cameraId, "snapshot"), { signal });
          await this.show(answer, { live: false }, signal);
        }
      } catch (error) {
        if (signal.aborted) return;
        liveAt = Date.now() + LIVE_AGAIN_MS;
        pause_ms = Math.max(pause_ms, AGAIN_MS);
        this.onFault(error instanceof ApiError ? error.message : "The picture cannot be shown");
      }
      await pause(pause_ms, signal);
    }
  }

  /** Requests one picture after the other: none waits here while another is drawn. */
  async live(signal) {
    const path = pathOf("cameras", this.cameraId, "live", "picture");
    let after = null;
    while (!signal.aborted) {
      const search = after === null ? "" : `?after=${encodeURIComponent(after)}`;
      const answer = await request(path + search, { signal });
      if (answer.status === 204) continue; // the camera has sent none since
      after = answer.headers.get("X-Captured-At");
      await this.show(answer, { live: true }, signal);
    }
  }

  async show(answer, { live }, signal) {
    const received_ms = performance.now();
    const age_ms = Number(answer.headers.get("X-Age-Ms") ?? NaN);
    const bitmap = await createImageBitmap(await answer.blob());
    try {
      if (signal.aborted) return;
      const { width, height } = bitmap;
      if (this.canvas.width !== width || this.canvas.height !== height) {
        Object.assign(this.canvas, { width, height });
      }
      this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
      this.capturedAt_ms = received_ms - age_ms; // by this page's clock, whatever the camera's shows
      this.onFault(null);
      this.onPicture({ width, height, live });
    } finally {
      bitmap.close();
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
