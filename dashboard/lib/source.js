// Where the state comes from: server-sent events, and polls for as long as those do not come. Knows neither page nor window, so
// that it also runs in a worker that all windows share (shared-source.js).
import { get, Refused } from "./api.js";

const POLL_MS = 2_000;
/** How long polls serve before the stream is tried again, beside them. */
const RETRY_STREAM_MS = 30_000;
/** A stream that is silent for this long is dead: it says something every second. */
const SILENT_MS = 6_000;
/** How long a new stream may take before the reader is told that polls are what they see. */
const GRACE_MS = 3_000;

const EVENTS = new URL("../state/events", import.meta.url);
const STATE = new URL("../state.json", import.meta.url);

/**
 * @param hear.live(state)  a new state
 * @param hear.beat(at)     nothing has changed
 * @param hear.link(word)   "connecting" | "live" | "polling" | "redis" | "lost" | "signed out"
 * @returns {start, stop}; starting again begins anew
 */
export function source(hear) {
  let running = false;
  let stream;
  /** whether the stream brings the state, so that no poll is needed */
  let streaming = false;
  /** by performance.now() */
  let heardAt = 0;
  let openedAt = 0;
  let you;
  /** counts starts: what an earlier one still waits for is dropped */
  let turn = 0;
  const timers = { watch: undefined, poll: undefined, reopen: undefined };

  const later = (name, work, ms) => {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(work, ms);
  };
  const close = () => {
    stream?.close();
    stream = undefined;
    streaming = false;
  };

  function open() {
    close();
    openedAt = heardAt = performance.now();
    const own = new EventSource(EVENTS);
    stream = own;
    const on = (name, then) =>
      own.addEventListener(name, (event) => {
        if (stream !== own) return;
        heardAt = performance.now();
        then(event.data);
      });
    on("you", (data) => {
      you = JSON.parse(data);
    });
    on("state", (data) => {
      streaming = true;
      hear.live({ ...JSON.parse(data), you });
      hear.link("live");
    });
    on("beat", (data) => {
      streaming = true;
      hear.beat(Number(data));
      hear.link("live");
    });
    on("down", () => {
      streaming = true;
      hear.link("redis");
    });
    own.addEventListener("error", () => {
      if (stream !== own) return;
      // A browser comes again by itself unless it was refused; meanwhile polls tell how things are.
      if (own.readyState === EventSource.CLOSED) giveUp();
      else if (streaming) {
        streaming = false;
        poll();
      }
    });
    later("watch", watch, 1_000);
  }

  /** Lets polls do it, and tries the stream again later. */
  function giveUp() {
    const polls = !streaming && timers.poll !== undefined;
    close();
    later("reopen", open, RETRY_STREAM_MS);
    if (!polls) poll();
  }

  function watch() {
    if (!stream) return;
    if (performance.now() - heardAt > SILENT_MS) giveUp();
    else later("watch", watch, 1_000);
  }

  async function poll() {
    const mine = turn;
    const isOver = () => !running || turn !== mine || streaming;
    clearTimeout(timers.poll);
    timers.poll = undefined;
    if (isOver()) return;
    try {
      const state = await get(STATE);
      if (isOver()) return;
      hear.live(state);
      hear.link(stream && performance.now() - openedAt < GRACE_MS ? "live" : "polling");
    } catch (error) {
      if (isOver()) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) return hear.link("signed out");
      hear.link(error instanceof Refused && error.status === 503 ? "redis" : "lost");
    }
    later("poll", poll, POLL_MS);
  }

  const stop = () => {
    running = false;
    turn++;
    for (const name of Object.keys(timers)) {
      clearTimeout(timers[name]);
      timers[name] = undefined;
    }
    close();
  };
  return {
    start() {
      stop();
      running = true;
      hear.link("connecting");
      open();
      poll(); // where event streams do not pass, the page is there all the same
    },
    stop,
  };
}
