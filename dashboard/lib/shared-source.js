// Runs as a SharedWorker: one stream of the state for all windows of a browser. A browser opens six connections to one address, and
// a stream holds one for as long as it lasts: with a stream a window, the sixth window could do nothing any more.
import { source } from "./source.js";

/** A window that was closed says nothing more; one that is seen says every few seconds that it is there. */
const GONE_MS = 20_000;

/** MessagePort → performance.now() of its last word; only windows that are seen */
const windows = new Map();
let last = {};
const tell = (message) => {
  last = { ...last, ...message };
  for (const port of windows.keys()) port.postMessage(message);
};
const feed = source({
  live: (live) => tell({ live }),
  beat: (beat) => tell({ beat }),
  link: (link) => tell({ link }),
});
let running = false;

function leave(port) {
  windows.delete(port);
  if (windows.size > 0 || !running) return;
  running = false;
  feed.stop();
  last = {};
}

/** @param anew  somebody has just signed in: who is asked for has changed */
function enter(port, anew) {
  const known = windows.has(port);
  windows.set(port, performance.now());
  if (!running || anew || last.link === "signed out") {
    if (running && !anew && known) return; // its sign that it is still there
    running = true;
    last = {};
    feed.start();
  } else if (!known) {
    if (last.live) port.postMessage({ live: last.live });
    if (last.link) port.postMessage({ link: last.link });
  }
}

setInterval(() => {
  for (const [port, at] of windows) if (performance.now() - at > GONE_MS) leave(port);
}, 5_000);

self.addEventListener("connect", (event) => {
  const [port] = event.ports;
  port.addEventListener("message", ({ data }) => (data.seen ? enter(port, data.anew) : leave(port)));
  port.start();
});
