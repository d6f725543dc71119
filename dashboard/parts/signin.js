// Sign-in by API key. The key goes into a cookie that scripts cannot read; the page forgets it.
import { html, useState } from "../lib/html.js";

export function SignIn({ state }) {
  const [told, setTold] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    const key = new FormData(event.target).get("key");
    setTold((await state.do.signIn(key)) ?? "");
    setBusy(false);
  };
  document.title = "Sign in · Longhaul";
  return html`<main class="signin">
    <form onSubmit=${submit}>
      <h1>Longhaul</h1>
      <p class="dim">Sign in with one of the gateway's API keys. A key that may only read shows everything and changes nothing.</p>
      <label for="key">API key</label>
      <input id="key" name="key" type="password" autocomplete="current-password" required autofocus
        aria-describedby="told" aria-invalid=${told !== ""} />
      <p id="told" class="fault" role="alert">${told}</p>
      <button class="main" disabled=${busy}>${busy ? "Signing in …" : "Sign in"}</button>
    </form>
  </main>`;
}
