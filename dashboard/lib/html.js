// The view library: Preact, with htm instead of a compiler. Children are text nodes, so nothing a job says is markup.
import htm from "htm";
import { h } from "preact";

export const html = htm.bind(h);
export { useEffect, useErrorBoundary, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
