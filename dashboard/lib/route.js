// The page's address: #/jobs?state=failed, #/jobs/<id>. Everything that one would like to send to a colleague is in it.

/** @returns {panel, id, query} */
export function parse(hash) {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name = "", ...rest] = path.split("/");
  const id = rest.length > 0 ? decodeURIComponent(rest.join("/")) : undefined;
  const query = Object.fromEntries(new URLSearchParams(search));
  const panel = name === "" ? "overview" : name === "jobs" && id ? "job" : name;
  return { panel, id, query };
}

/** The address of a panel. @param fields  what is set goes into the query */
export function to(path, fields = {}) {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return `#/${path}${set.length ? `?${new URLSearchParams(set)}` : ""}`;
}
export const toJob = (id) => `#/jobs/${encodeURIComponent(id)}`;
