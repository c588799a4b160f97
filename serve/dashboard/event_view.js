// One event in full: its clip or why there is none, its picture, and all its fields.

import { request, get, pathOf, serverNow } from "./api.js";
import { element, facts, setNotice } from "./element.js";
import { ago, duration, stamp } from "./times.js";
import {
  attributeFacts, clipReason, percent, remark, sentence, theftCheck, typeName,
} from "./words.js";

const CONVERTING = "Converting the clip, which this browser cannot play as the camera sent it …";
const CONVERTED = "Converted to H.264. The download is as the camera sent it.";
const LEAD_S = 1; // a jump to the event goes to a moment before it

export class EventView {
  /**
   * @param events the list, for newer and older ones.
   * @param onClose called when the view closes.
   * @param onCamera called with a camera's id to show it.
   */
  constructor({ events, onClose, onCamera }) {
    this.dialog = document.getElementById("event-view");
    this.events = events;
    this.onCamera = onCamera;
    this.event = null;
    this.id = null;
    this.dialog.addEventListener("close", () => {
      this.dialog.replaceChildren(); // ends the video's download
      this.event = null;
      this.id = null;
      onClose();
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  /** Shows an event of the list, or of the store. */
  async open(id) {
    this.id = id;
    const known = this.events.find(id);
    if (known !== undefined) {
      this.show(known);
      return;
    }
    try {
      const event = await get(pathOf("events", id));
      if (this.id === id) this.show(event);
    } catch (error) {
      if (this.id === id) this.showFault(error);
    }
  }

  /** Takes a newer version of the event that is shown. */
  update(event) {
    if (this.event?.event_id !== event.event_id || event.version <= this.event.version) return;
    this.event = event;
    if (this.mediaKey(event) !== this.media.dataset.key) this.showMedia(event);
    else if (event.clip?.uri) this.showParts(Number(this.partNote.dataset.part)); // it may have grown
    this.showFacts(event);
  }

  show(event) {
    this.event = event;
    this.title = element("h2", { id: "event-view-title" });
    this.badge = element("span", { className: "badge" });
    this.media = element("div", { className: "view-main" });
    this.side = element("div");
    this.keeper = element("button", { type: "button", on: { click: () => this.toggleKeep() } });
    this.result = element("p", { className: "fault", role: "alert", hidden: true });
    this.dialog.replaceChildren(
      element("div", { className: "view-head" }, this.badge, this.title, this.closer()),
      element(
        "div",
        { className: "view-body" },
        this.media,
        element(
          "div",
          { className: "view-side" },
          this.side,
          element(
            "div",
            { className: "buttons" },
            this.stepper("Newer", -1),
            this.stepper("Older", 1),
            this.keeper,
            element("button", {
              type: "button",
              on: { click: () => { const id = this.event.camera_id; this.dialog.close(); this.onCamera(id); } },
            }, "Camera"),
          ),
          this.result,
        ),
      ),
    );
    this.showMedia(event);
    this.showFacts(event);
    if (!this.dialog.open) this.dialog.showModal();
  }

  showFault(error) {
    this.dialog.replaceChildren(
      element("div", { className: "view-head" },
        element("h2", { id: "event-view-title" }, "This event cannot be shown"), this.closer()),
      element("p", { className: "notice" }, `${error.message}.`),
    );
    if (!this.dialog.open) this.dialog.showModal();
  }

  closer() {
    return element("button", {
      type: "button", className: "close", "aria-label": "Close",
      on: { click: () => this.dialog.close() },
    }, "×");
  }

  stepper(text, step) {
    const target = this.events.neighbour(this.event.event_id, step);
    const onClick = () => {
      const next = this.events.neighbour(this.event.event_id, step);
      if (next === undefined) return;
      this.open(next);
      [...this.dialog.querySelectorAll(".buttons button")]
        .find((button) => button.textContent === text && !button.disabled)?.focus();
    };
    return element("button", { type: "button", disabled: target === undefined, on: { click: onClick } }, text);
  }

  showFacts(event) {
    const now_ms = serverNow();
    const started_ms = Date.parse(event.started_at);
    const ended_ms = Date.parse(event.ended_at ?? "");
    const more = remark(event);
    this.badge.dataset.type = event.type;
    this.badge.textContent = typeName(event.type);
    this.title.textContent = sentence(event);
    const open = event.status === "open";
    this.keeper.setAttribute("aria-pressed", String(event.keep));
    this.keeper.textContent = event.keep ? "Kept" : "Keep";
    this.keeper.title = event.keep
      ? "Clip and picture are kept whatever their age. Choose to let them go again."
      : "Keep clip and picture whatever their age";
    const reported_ms = event.latency_ms?.capture_to_store;
    this.side.replaceChildren(
      facts([
        ["When", `${stamp(started_ms, now_ms)} (${ago(started_ms, now_ms)})`],
        ["Until", open ? "still going on" : Number.isNaN(ended_ms) ? null : stamp(ended_ms, now_ms)],
        ["Stayed", typeof event.dwell_s === "number" ? duration(event.dwell_s) : null],
        ["Note", more && !more.includes("stayed") && !more.includes("so far") ? more : null],
        ["Camera", event.camera_id],
        ["Zone", event.zone_id],
        ["Person", event.person_id],
        ["Sure", typeof event.score === "number" ? percent(event.score) : null],
        ...attributeFacts(event),
        ["Theft check", theftCheck(event)],
        ["Model", event.model?.name],
        ["Reported", Number.isFinite(reported_ms) ? `${Math.round(reported_ms)} ms after it was seen` : null],
        ["Store", event.store_id],
        ["Event", event.event_id],
      ]),
    );
  }

  async toggleKeep() {
    const { event_id: id, keep } = this.event;
    this.keeper.disabled = true;
    try {
      const path = pathOf("events", id);
      const event = await (await request(path, { method: "PATCH", body: { keep: !keep } })).json();
      setNotice(this.result, "");
      this.update(event);
    } catch (error) {
      setNotice(this.result, `That did not work: ${error.message}.`);
    }
    this.keeper.disabled = false;
  }

  mediaKey(event) {
    return JSON.stringify([clipReason(event), event.clip?.uri, event.snapshot?.uri]);
  }

  showMedia(event) {
    this.media.dataset.key = this.mediaKey(event);
    const fault = element("p", { className: "note" });
    setNotice(fault, clipReason(event) ?? "");
    const still = event.snapshot ? pathOf("events", event.event_id, "snapshot") : null;
    if (event.clip?.uri) {
      this.media.replaceChildren(...this.player(event, still, fault), fault);
    } else if (still) {
      this.media.replaceChildren(
        element("img", { className: "still", src: still, alt: `Picture: ${sentence(event)}` }), fault,
      );
    } else {
      this.media.replaceChildren(element("div", { className: "nothing" }, fault));
    }
  }

  /** A video that plays the clip's files one after the other, and what belongs below it. */
  player(event, still, fault) {
    let part = 0;
    let converted = false; // whether the video's source is the H.264 copy
    const load = (convert) => {
      converted = convert;
      video.src = clipPath(event, part, converted);
      setNotice(fault, converted ? CONVERTING : "");
    };
    const onUnplayable = () => {
      if (converted) this.explain(video, clipPath(event, part, true), fault);
      else load(true);
    };
    const video = element("video", {
      controls: true, preload: "metadata", playsInline: true,
      poster: still ?? undefined, "aria-label": `Clip: ${sentence(event)}`,
      on: {
        error: onUnplayable,
        loadedmetadata: () => {
          if (video.videoWidth === 0) onUnplayable(); // it would play the sound alone
          else setNotice(fault, converted ? CONVERTED : "");
        },
        ended: () => {
          if (part >= numParts(this.event)) return; // of its newest version
          show(part + 1).then(() => video.play()).catch(() => {});
        },
      },
    });
    const show = async (next) => {
      part = next;
      this.showParts(part);
      const playable = await canPlay(video, clipPath(event, next));
      if (part === next && video.isConnected) load(!playable);
    };
    const into_s = (Date.parse(event.started_at) - Date.parse(event.clip.start ?? "")) / 1000;
    this.jump = into_s > LEAD_S ? element("button", {
      type: "button", className: "small",
      on: {
        click: async () => {
          if (part !== 0) shown = show(0);
          await shown;
          video.currentTime = Math.max(0, into_s - LEAD_S); // kept until the file is open
          video.play().catch(() => {});
        },
      },
    }, "Play from the event") : null;
    this.links = element("div", { className: "buttons" });
    this.partNote = element("p", { className: "parts" });
    let shown = show(0);
    return [video, this.links, this.partNote];
  }

  /** Shows which file of the clip plays, with links to all of them. */
  showParts(part) {
    const { event } = this;
    const last = numParts(event);
    this.partNote.dataset.part = part;
    setNotice(this.partNote, last ? `File ${part + 1} of ${last + 1} of this clip; the next follows by itself.` : "");
    const files = [event.clip, ...(event.clip.parts ?? [])];
    this.links.replaceChildren(
      ...[this.jump].filter(Boolean),
      ...files.map((file, number) => element("a", {
        href: clipPath(event, number),
        download: `${event.event_id}${number ? `.part${number}` : ""}.${ending(file.uri)}`,
      }, last ? `Download ${number + 1}` : "Download")),
    );
  }

  /** Finds out why a video does not play. */
  async explain(video, source, fault) {
    try {
      await request(source, { method: "HEAD" });
    } catch (error) {
      video.remove();
      if (error.status === 404) {
        setNotice(fault, `There is no clip: ${await reasonOf(source)}.`);
      } else {
        setNotice(fault, `The clip cannot be played: ${await reasonOf(source)}.`);
      }
      return;
    }
    setNotice(fault, "This browser cannot play the clip. It can be downloaded.");
  }
}

/** How many files a clip has behind its first. */
function numParts(event) {
  return event?.clip?.parts?.length ?? 0;
}

function clipPath(event, part, converted = false) {
  const query = [part ? `part=${part}` : "", converted ? "codec=h264" : ""].filter(Boolean);
  return [pathOf("events", event.event_id, "clip"), query.join("&")].filter(Boolean).join("?");
}

/** Whether this browser can play a clip as it is stored; true where only trying can tell. */
async function canPlay(video, source) {
  try {
    const answer = await request(source, { method: "HEAD" });
    const codec = answer.headers.get("X-Video-Codec");
    const container = codec === "vp8" ? "webm" : "mp4"; // as browsers know it
    return codec === null || video.canPlayType(`video/${container}; codecs="${codec}"`) !== "";
  } catch {
    return true; // the video's own request reports why
  }
}

/** Why a request is refused: the response to HEAD has no body that could name it. */
async function reasonOf(source) {
  return get(source).then(() => "it is there now", (problem) => problem.message);
}

function ending(uri) {
  return /\.(\w{1,5})$/.exec(uri)?.[1] ?? "mp4";
}
