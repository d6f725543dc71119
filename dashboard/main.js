// The dashboard's entry: one state, one source of it, one page drawn from it. Timers and fetches live in lib/ only.
import { render } from "preact";
import { actions } from "./lib/actions.js";
import { connect } from "./lib/connect.js";
import { html } from "./lib/html.js";
import { loader } from "./lib/load.js";
import { parse } from "./lib/route.js";
import { initial, makeStore } from "./lib/store.js";
import { Shell } from "./parts/shell.js";

const root = document.getElementById("app");
root.replaceChildren();
const store = makeStore(initial(), (state) => render(html`<${Shell} state=${state} />`, root));
const { load, enter, refresh } = loader(store);

let entered = false;
/** Loads what the panel needs, once it is known that somebody is signed in. */
function arrive() {
  entered = true;
  enter(store.get().route);
}

const feed = connect({
  live(live) {
    const { skew } = store.get();
    const first = !entered;
    // Redis's clock, as every time on the page is, smoothed by nothing but the first look: a jump of a second does not
    // matter. The reader's own clock may be off, and may be set: performance.now() tells what has passed since.
    const seen = live.at - performance.now();
    const closer = store.get().live === undefined || Math.abs(seen - skew) > 3_000 ? seen : skew;
    store.set({ live, you: live.you, heardAt: performance.now(), skew: closer, now: performance.now() + closer });
    if (first) arrive();
  },
  beat: () => store.set({ heardAt: performance.now() }),
  link(link) {
    if (store.get().link !== link) store.set({ link });
    if (link === "signed out") {
      entered = false;
      feed.stop();
    }
  },
});

const act = actions(store, load, () => feed.start(true));
store.set({ do: act, route: parse(location.hash) });

window.addEventListener("hashchange", () => {
  const [before, focused] = [store.get().route, document.activeElement?.id];
  const route = parse(location.hash);
  store.set({ route, dialog: undefined });
  if (entered) arrive();
  // A filter changes what is listed, not where one is: who typed it can go on typing, though its form is drawn anew.
  const stays = route.panel === before.panel && route.id === before.id;
  if (!stays) window.scrollTo(0, 0);
  // once it is drawn
  queueMicrotask(() => {
    if (stays && document.activeElement !== document.body) return;
    // who reads by ear or by key starts at the new panel's title
    const field = (stays && document.getElementById(focused)) || document.getElementById("title");
    field?.focus({ preventScroll: true });
    field?.setSelectionRange?.(-1, -1); // at its end
  });
});

let n = 0;
setInterval(() => {
  if (document.hidden) return;
  store.set({ now: performance.now() + store.get().skew });
  if (entered) refresh(++n);
}, 1_000);

feed.start();
