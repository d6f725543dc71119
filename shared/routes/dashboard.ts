/** The dashboard on its own port: static files and the state that they show. */
import { type Gateway, newApp } from "../app.ts";

export function dashboard(_gateway: Gateway) {
  const app = newApp();
  return app;
}
