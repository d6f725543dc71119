// Where the state comes from: server-sent events, and a poll where they do not pass. Rests while the page is hidden.
import { get, Refused } from "./api.js";

const POLL_MS = 2_000;
/** How long a poll serves before the stream is tried again. */
const RETRY_STREAM_MS = 30_000;
/** A stream that is silent for this long is dead: it says something every second. */
const SILENT_MS = 6_000;

/**
 * @param hear.live(state)  a new state
 * @param hear.beat(at)     nothing has changed
 * @param hear.link(word)   "connecting" | "live" | "polling" | "redis" | "lost" | "hidden" | "signed out"
 * @returns {start, stop}
 */
export function source(hear) {
  let stream;
  let timer;
  let you;
  let heardAt = 0;
  let streamAfter = 0;
  let running = false;

  const later = (work, ms) => {
    clearTimeout(timer);
    timer = setTimeout(work, ms);
  };
  const close = () => {
    stream?.close();
    stream = undefined;
  };

  function open() {
    close();
    hear.link("connecting");
    heardAt = Date.now();
    const own = new EventSource("/state/events");
    stream = own;
    const on = (name, then) =>
      own.addEventListener(name, (event) => {
        if (stream !== own) return;
        heardAt = Date.now();
        then(event.data);
      });
    on("you", (data) => {
      you = JSON.parse(data);
    });
    on("state", (data) => {
      hear.live({ ...JSON.parse(data), you });
      hear.link("live");
    });
    on("beat", (data) => {
      hear.beat(Number(data));
      hear.link("live");
    });
    on("down", () => hear.link("redis"));
    own.addEventListener("error", () => {
      if (stream !== own) return;
      // A browser comes again by itself unless it was refused; a poll then finds out why.
      if (own.readyState === EventSource.CLOSED) poll();
      else hear.link("lost");
    });
    later(watch, 1_000);
  }

  function watch() {
    if (!stream) return;
    if (Date.now() - heardAt > SILENT_MS) poll();
    else later(watch, 1_000);
  }

  async function poll() {
    close();
    if (streamAfter < Date.now()) streamAfter = Date.now() + RETRY_STREAM_MS;
    try {
      const state = await get("/state.json");
      if (!running) return;
      hear.live(state);
      hear.link("polling");
    } catch (error) {
      if (!running) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) return hear.link("signed out");
      hear.link(error instanceof Refused && error.status === 503 ? "redis" : "lost");
    }
    later(Date.now() >= streamAfter - POLL_MS ? open : poll, POLL_MS);
  }

  const start = () => {
    running = true;
    if (document.hidden) hear.link("hidden");
    else open();
  };
  document.addEventListener("visibilitychange", () => {
    if (!running) return;
    clearTimeout(timer);
    close();
    if (document.hidden) hear.link("hidden");
    else open();
  });
  return {
    start,
    stop() {
      running = false;
      clearTimeout(timer);
      close();
    },
  };
}
