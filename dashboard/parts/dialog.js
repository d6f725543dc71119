// A question before something that cannot be taken back. The browser's own dialog keeps the focus inside.
import { html, useEffect, useRef, useState } from "../lib/html.js";

/** @param dialog {title, text, confirm, danger, run}; `text` may be a list of sentences */
export function Dialog({ dialog, close }) {
  const ref = useRef();
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    ref.current.showModal();
    return () => ref.current?.close();
  }, []);
  const run = async () => {
    setBusy(true);
    await dialog.run();
    close();
  };
  return html`<dialog ref=${ref} aria-labelledby="dialog-title" onClose=${close}>
    <h2 id="dialog-title">${dialog.title}</h2>
    ${[dialog.text].flat().map((text, i) => html`<p key=${i}>${text}</p>`)}
    <div class="buttons">
      <button type="button" onClick=${close} autofocus>Leave it</button>
      <button type="button" class=${dialog.danger ? "danger" : "main"} disabled=${busy} onClick=${run}>
        ${busy ? "Working …" : dialog.confirm}
      </button>
    </div>
  </dialog>`;
}
