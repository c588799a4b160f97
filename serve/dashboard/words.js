// Names of events, cameras and faults for readers who are not engineers.

import { duration } from "./times.js";

/** Event types in the order in which they are offered, with their names. */
export const TYPES = new Map([
  ["shoplifting_suspected", "Possible theft"],
  ["intrusion", "Intrusion"],
  ["loitering", "Loitering"],
  ["line_crossing", "Line crossed"],
  ["occupancy", "Crowded"],
  ["person", "Person"],
  ["manual", "Recording"],
]);

const STATES = new Map([
  ["playing", "Playing"],
  ["no_picture", "No picture"],
  ["starving", "Too few pictures"],
  ["overloaded", "Overloaded"],
  ["connecting", "Connecting"],
  ["reconnecting", "Reconnecting"],
  ["failed", "Failed"],
  ["ended", "Ended"],
  ["stopped", "Stopped"],
  ["disabled", "Off"],
]);

const SHOWING = new Set(["playing", "starving", "overloaded"]);
const WELL = new Set(["playing", "disabled"]);

const SILENCE = new Map([
  ["no_picture", "The camera sends video, but no picture can be made of it."],
  ["connecting", "Connecting to the camera …"],
  ["reconnecting", "The connection was lost. Connecting again …"],
  ["failed", "The camera does not work"],
  ["ended", "The video has ended"],
  ["stopped", "The camera is stopped"],
  ["disabled", "The camera is switched off"],
]);

const LOSSES = new Map([
  ["superseded", "passed over for a newer picture"],
  ["detector_full", "refused, the detector was busy"],
  ["decode_lag", "skipped, decoding was behind"],
  ["undecodable", "damaged"],
  ["before_keyframe", "before the first whole picture"],
]);

/** Whether a camera's pictures of now are searched for people, be it too few of them. */
export function showsPictures(status) {
  return SHOWING.has(status.state);
}

/** Whether a camera is watched as it should be; a film's own end is no fault. */
export function isWell(status) {
  return WELL.has(status.state) || (status.state === "ended" && !status.state_reason);
}

/** An event type's name; an unknown type is shown as it is. */
export function typeName(type) {
  return TYPES.get(type) ?? plain(type);
}

/** A camera state's name. */
export function stateName(state) {
  return STATES.get(state) ?? plain(state);
}

/** Why a camera shows no moving picture; empty while it plays. */
export function silence(state) {
  return SILENCE.get(state) ?? "";
}

/** What happened to frames of a cause of loss. */
export function lossName(cause) {
  return LOSSES.get(cause) ?? plain(cause);
}

/** One sentence of what happened, in the present tense while the event is open. */
export function sentence(event) {
  const open = event.status === "open";
  const zone = event.zone_id ? `'${event.zone_id}'` : null;
  const place = zone ?? "the picture";
  const attributes = event.attributes ?? {};
  switch (event.type) {
    case "loitering":
      return event.dwell_s === null
        ? `Somebody ${open ? "is staying" : "stayed"} at ${place}`
        : `Somebody ${open ? "has been" : "was"} at ${place} for ${duration(event.dwell_s)}`;
    case "intrusion":
      return `Somebody entered ${place}`;
    case "line_crossing": {
      const way = { in: ", going in", out: ", going out" }[attributes.direction] ?? "";
      return `Somebody crossed ${zone ?? "the line"}${way}`;
    }
    case "occupancy": {
      const people = open ? attributes.people : attributes.peak_people;
      const limit = event.rule?.max_people;
      const most = Number.isFinite(limit) ? ` (at most ${limit} expected)` : "";
      if (!Number.isFinite(people)) return `Too many people in ${place}${most}`;
      return `${open ? "" : "Up to "}${count(people, "person", "people")} in ${place}${most}`;
    }
    case "person":
      return zone ? `Somebody appeared at ${zone}` : "Somebody came into view";
    case "shoplifting_suspected":
      return `Somebody may have taken something${zone ? ` at ${zone}` : ""}`;
    case "manual":
      return open ? "Recording on request" : "Recorded on request";
    default:
      return `${typeName(event.type)}${zone ? ` at ${zone}` : ""}`;
  }
}

/** A remark to the sentence: how long, how sure. */
export function remark(event) {
  const parts = [];
  if (event.type !== "loitering" && event.type !== "occupancy" && event.dwell_s > 0.5) {
    parts.push(`${event.status === "open" ? "so far" : "stayed"} ${duration(event.dwell_s)}`);
  }
  if (event.type === "shoplifting_suspected" && event.score !== null) {
    parts.push(`${percent(event.score)} sure`);
  }
  return parts.join(", ");
}

/** The theft check's result for the event's person; null where there is none. */
export function theftCheck(event) {
  const { threshold, decision } = event.attributes ?? {};
  const check = event.type === "shoplifting_suspected"
    ? { score: event.score, threshold, decision }
    : event.attributes?.shoplifting;
  if (typeof check?.score !== "number" || typeof check.threshold !== "number") return null;
  const word = check.decision === "suspected" ? "Suspected" : "Not suspected";
  return `${word}: ${percent(check.score)}, suspected from ${percent(check.threshold)}`;
}

/** The attribute predictions of an event's person: pairs of an attribute and its label. */
export function attributeFacts(event) {
  return Object.entries(event.attributes ?? {})
    .filter(([, prediction]) => typeof prediction?.label === "string")
    .map(([name, prediction]) => {
      const agree = Math.round(prediction.share * prediction.votes);
      return [plain(name), `${prediction.label} (${agree} of ${count(prediction.votes, "look", "looks")})`];
    });
}

/** A zone's rule in one line. */
export function ruleWords(rule) {
  const keeps = rule.record === false ? "; keeps no video" : "";
  switch (rule.type) {
    case "intrusion":
      return `Reports whoever enters${keeps}`;
    case "loitering":
      return `Reports whoever stays ${duration(rule.loiter_s ?? 3)} or longer${keeps}`;
    case "line_crossing": {
      const ways = { in: " on the way in", out: " on the way out" };
      return `Reports whoever crosses${ways[rule.direction] ?? ""}${keeps}`;
    }
    case "occupancy":
      return (
        `Reports more than ${count(rule.max_people, "person", "people")} for ` +
        `${duration(rule.for_s ?? 3)}${keeps}`
      );
    case "person":
      return `Reports whoever appears${keeps}`;
    case "shoplifting_suspected":
      return `Reports who may be taking something${keeps}`;
    default:
      return `${typeName(rule.type)}${keeps}`;
  }
}

/** Why an event has no clip, or what its clip lacks; null when there is a whole one. */
export function clipReason(event) {
  const clip = event.clip;
  if (clip?.uri) return clip.error ? `The clip is not complete: ${clip.error}` : null;
  if (clip?.error) return `There is no clip: ${clip.error}`;
  if (event.rule?.record === false) return "There is no clip because this rule keeps no video.";
  if (event.status === "open") {
    return "There is no clip yet because the event is still going on.";
  }
  if (clip) return "There is no clip yet because it is still being saved.";
  return "There is no clip because no video was kept for this event.";
}

/** "1 person", "3 people". */
export function count(number, one, several) {
  return `${number} ${number === 1 ? one : several}`;
}

/** 0..1 as whole per cent. */
export function percent(fraction) {
  return `${Math.round(fraction * 100)} %`;
}

/** Large counts, short: 950, 1.2k, 34k, 5.6M. */
export function short(number) {
  if (number < 1000) return String(number);
  const [scaled, unit] = number < 1e6 ? [number / 1e3, "k"] : [number / 1e6, "M"];
  return `${scaled < 10 ? Math.floor(scaled * 10) / 10 : Math.floor(scaled)}${unit}`;
}

/** A name of the API with its underscores as spaces, capital first. */
export function plain(name) {
  const text = String(name ?? "").replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
