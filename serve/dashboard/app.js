// Creates the page's parts and connects them.

import { CameraView } from "./camera_view.js";
import { Cameras } from "./cameras.js";
import { EventView } from "./event_view.js";
import { Events } from "./events.js";
import { Filters } from "./filters.js";
import { Health } from "./health.js";
import { Login } from "./login.js";
import { setText } from "./element.js";
import { Stream } from "./stream.js";
import { VisitorsView } from "./visitors_view.js";

const STREAM_WORDS = { live: "live", polling: "every 5 s", waiting: "reconnecting" };

const resume = () => cameras.pause(document.querySelector("dialog.view[open]") !== null);
const openCamera = (id) => {
  cameras.pause(true);
  cameraView.open(id);
};
const openEvent = (id) => {
  cameras.pause(true);
  eventView.open(id);
};
const start = () => {
  health.refresh();
  cameras.refresh();
  events.reload();
  stream.start();
};

const health = new Health();
const cameras = new Cameras({ onOpen: openCamera });
const filters = new Filters({ onChange: () => events.reload() });
const events = new Events({
  filters,
  onOpen: openEvent,
  onChange: (event) => {
    eventView.update(event);
    cameraView.take(event);
  },
});
const cameraView = new CameraView({ onClose: resume, onEvents: (id) => filters.only(id) });
const eventView = new EventView({ events, onClose: resume, onCamera: openCamera });
const visitorsView = new VisitorsView({
  onOpen: () => cameras.pause(true),
  onClose: resume,
});
const streamState = document.getElementById("stream-state");
const stream = new Stream({
  onEvent: (event) => events.take(event),
  onCatchUp: () => events.catchUp(),
  onState: (state) => {
    streamState.dataset.state = state;
    setText(streamState, STREAM_WORDS[state]);
  },
});
cameras.whenKnown((statuses) => {
  health.learnCameras(statuses);
  cameraView.updateFrom(statuses);
  filters.learnCameras(statuses);
  visitorsView.learnCameras(statuses);
});
new Login({ onLogin: start });
window.addEventListener("pagehide", () => stream.stop());
window.addEventListener("pageshow", (event) => { if (event.persisted) start(); });

start();
