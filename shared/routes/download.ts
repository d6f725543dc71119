/** GET /download/{token}: a file, to whoever has the link. The token is the authorization. */
import { create as disposition } from "content-disposition";
import { getMimeType } from "hono/utils/mime";
import { type Gateway, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { sendFile } from "../send-file.ts";
import { readToken } from "../store/tokens.ts";
import { openFile } from "../volumes.ts";

export function download(gateway: Gateway) {
  const { config, inspector } = gateway;
  const app = newApp();
  app.get("/download/:token", async (c) => {
    const path = await readToken(inspector, c.req.param("token"));
    if (path === undefined) {
      throw new Fault("unknown_file", "This download link is unknown or has expired; create a new one.");
    }
    const file = await openFile(config, path);
    return sendFile(c.req.raw, file, {
      "content-type": typeOf(file.name),
      "content-disposition": disposition(file.name),
    });
  });
  return app;
}

/** By the name's end. Hono looks it up in a plain object, so `x.constructor` finds something that is no type. */
function typeOf(name: string): string {
  const type: unknown = getMimeType(name);
  return typeof type === "string" ? type : "application/octet-stream";
}
