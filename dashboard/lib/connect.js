// The page's own end of the source: it rests while the page is hidden, and shares one stream with the browser's other windows.
import { source } from "./source.js";

const HERE_MS = 5_000;

/** A source in a worker that all windows share. @param failed  called when the browser cannot run it */
function shared(hear, failed) {
  const worker = new SharedWorker(new URL("./shared-source.js", import.meta.url), { type: "module", name: "longhaul" });
  let timer;
  worker.addEventListener("error", failed);
  worker.port.addEventListener("message", ({ data }) => {
    if (data.live) hear.live(data.live);
    if (data.beat) hear.beat(data.beat);
    if (data.link) hear.link(data.link);
  });
  worker.port.start();
  const say = (message) => worker.port.postMessage(message);
  const stop = () => {
    clearInterval(timer);
    say({ seen: false });
  };
  return {
    start(anew) {
      clearInterval(timer);
      timer = setInterval(() => say({ seen: true }), HERE_MS);
      say({ seen: true, anew });
    },
    stop,
  };
}

/**
 * @param hear  as source.js has it; link also says "hidden"
 * @returns {start(anew), stop}. anew: somebody has just signed in
 */
export function connect(hear) {
  let running = false;
  // What a source says after it was stopped is not news: a worker's message may be on its way.
  const listen = (name) => (value) => running && !document.hidden && hear[name](value);
  const heard = { live: listen("live"), beat: listen("beat"), link: listen("link") };
  const own = () => source(heard);
  let feed;
  const failed = () => {
    feed = own();
    if (running && !document.hidden) feed.start();
  };
  try {
    feed = "SharedWorker" in window ? shared(heard, failed) : own();
  } catch {
    feed = own();
  }
  document.addEventListener("visibilitychange", () => {
    if (!running) return;
    if (document.hidden) {
      feed.stop();
      hear.link("hidden");
    } else feed.start();
  });
  // A page that is left says so; one that comes back out of the browser's cache begins anew.
  window.addEventListener("pagehide", () => feed.stop());
  window.addEventListener("pageshow", (event) => event.persisted && running && feed.start());
  return {
    start(anew) {
      running = true;
      if (document.hidden) hear.link("hidden");
      else feed.start(anew);
    },
    stop() {
      running = false;
      feed.stop();
    },
  };
}
