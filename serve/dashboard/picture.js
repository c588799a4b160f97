// One camera's picture on a canvas: live (MJPEG) while it is visible and a connection is free,
// single pictures otherwise. The stream is read in here, so that it can be stopped and timed out.

import { ApiError, request, pathOf } from "./api.js";
import { takeLine } from "./lines.js";

const SINGLE_MS = 1500; // between single pictures, in view
const ASIDE_MS = 20000; // the same, out of view
const AGAIN_MS = 3000; // after an error
const SILENT_MS = 30000; // a stream without data for so long is reopened
const LIVE_AGAIN_MS = 6000; // between attempts to go live
const MAX_HEAD = 4096;
const MAX_PICTURE = 32 * 1024 * 1024;

/** What a picture shows: nothing, single pictures, or the live stream. */
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
          await this.draw(await answer.blob(), { live: false }, signal);
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

  async live(signal) {
    const silence = new AbortController();
    const either = AbortSignal.any([signal, silence.signal]);
    let timer = setTimeout(() => silence.abort(), SILENT_MS);
    try {
      const path = pathOf("cameras", this.cameraId, "live");
      const response = await request(path, { signal: either, patient: true });
      for await (const jpeg of pictures(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENT_MS);
        await this.draw(new Blob([jpeg], { type: "image/jpeg" }), { live: true }, either);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async draw(blob, { live }, signal) {
    const bitmap = await createImageBitmap(blob);
    try {
      if (signal.aborted) return;
      const { width, height } = bitmap;
      if (this.canvas.width !== width || this.canvas.height !== height) {
        Object.assign(this.canvas, { width, height });
      }
      this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
      this.onFault(null);
      this.onPicture({ width, height, live });
    } finally {
      bitmap.close();
    }
  }
}

/** The JPEGs of a multipart/x-mixed-replace body whose parts have a Content-Length. */
export async function* pictures(body) {
  let kept = new Uint8Array(0);
  for await (const chunk of chunks(body)) {
    kept = joined(kept, chunk);
    for (;;) {
      const head = headEnd(kept);
      if (head < 0) {
        if (kept.length > MAX_HEAD) throw new Error("a part without a head");
        break;
      }
      const text = new TextDecoder("latin1").decode(kept.subarray(0, head));
      const length = Number(/content-length:\s*(\d+)/i.exec(text)?.[1] ?? NaN);
      if (!(length <= MAX_PICTURE)) throw new Error("a part without a usable length");
      if (kept.length < head + length) break;
      yield kept.slice(head, head + length);
      kept = kept.slice(head + length);
    }
  }
}

async function* chunks(body) {
  const reader = body.getReader(); // for await over a body is not in every browser yet
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function joined(first, second) {
  if (first.length === 0) return second;
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Where the body after an empty line begins; -1 while that line has not arrived. */
function headEnd(bytes) {
  const last = Math.min(bytes.length, MAX_HEAD) - 3;
  for (let at = 0; at < last; at += 1) {
    if (bytes[at] === 13 && bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) {
      return at + 4;
    }
  }
  return -1;
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
