// One camera's picture on a canvas: live (MJPEG) while it is looked at and a line is free, single
// pictures otherwise. The stream is read by hand, so that it can be stopped and watched for silence.

import { ApiError, ask, pathOf } from "./api.js";
import { takeLine } from "./lines.js";

const SINGLE_MS = 1500; // between single pictures, in view
const ASIDE_MS = 20000; // the same, out of view
const AGAIN_MS = 3000; // after something went wrong
const SILENT_MS = 30000; // a stream that says nothing for so long is opened anew
const LIVE_AGAIN_MS = 6000; // between attempts to go live
const MAX_HEAD = 4096;
const MAX_PICTURE = 32 * 1024 * 1024;

/** How much of a picture is wanted. */
export const Wanted = Object.freeze({ NOTHING: "nothing", SINGLE: "single", LIVE: "live" });

export class Picture {
  /**
   * @param canvas drawn on.
   * @param cameraId whose pictures.
   * @param onPicture called after each picture with its size {width, height} and whether it is live.
   * @param onFault called with words when no picture can be had, with null when one came.
   */
  constructor(canvas, cameraId, { onPicture = () => {}, onFault = () => {} } = {}) {
    this.canvas = canvas;
    this.cameraId = cameraId;
    this.onPicture = onPicture;
    this.onFault = onFault;
    this.wanted = Wanted.NOTHING;
    this.stopping = null;
  }

  /** Changes how much is wanted; what runs is stopped at once. */
  want(wanted) {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    this.stopping?.abort();
    this.stopping = null;
    if (wanted === Wanted.NOTHING) return;
    this.stopping = new AbortController();
    this.run(wanted, this.stopping.signal);
  }

  async run(wanted, signal) {
    let liveAt = 0;
    while (!signal.aborted) {
      let pause_ms = wanted === Wanted.LIVE ? SINGLE_MS : ASIDE_MS;
      try {
        const release = wanted === Wanted.LIVE && Date.now() >= liveAt ? await takeLine() : null;
        if (release !== null) {
          try {
            await this.live(signal);
          } finally {
            release();
          }
          pause_ms = AGAIN_MS;
        } else {
          const answer = await ask(pathOf("cameras", this.cameraId, "snapshot"), { signal });
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
      const response = await ask(path, { signal: either, patient: true });
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

/** The JPEGs of a multipart/x-mixed-replace body whose parts tell their Content-Length. */
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

/** Where the body after an empty line begins; -1 while the line has not come. */
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
