// The page's address: #/jobs?state=failed, #/jobs/<id>. Everything that one would like to send to a colleague is in it.

/** @returns {panel, id, query} */
export function parse(hash) {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name = "", ...rest] = path.split("/");
  const id = rest.length > 0 ? decoded(rest.join("/")) : undefined;
  const query = Object.fromEntries(new URLSearchParams(search));
  const panel = name === "" ? "overview" : name === "jobs" && id ? "job" : name;
  return { panel, id, query };
}

/** An id of an address; one that is no text (`%E0`) stays as it is, and is then found nowhere. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a panel. @param fields  what is set goes into the query */
export function to(path, fields = {}) {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return `#/${path}${set.length ? `?${new URLSearchParams(set)}` : ""}`;
}
export const toJob = (id) => `#/jobs/${encodeURIComponent(id)}`;

/** An age of the address as fields of the API: "1h" = older than that, "-1h" = within it. */
export const ageFilter = (age) =>
  !age ? {} : age.startsWith("-") ? { newer_than: age.slice(1) } : { older_than: age };
