/**
 * What zod says of a value, in plain words. They replace the library's own messages in the whole process, so that no schema,
 * of the environment, of a file or of a request, answers with those.
 */
import { z } from "zod";

const MAX_SHOWN = 60;
const FORMATS: Record<string, string> = {
  email: "an e-mail address",
  url: "a URL",
  uuid: "a UUID",
  datetime: "an ISO 8601 time such as 2026-01-31T08:00:00Z",
  date: "a date such as 2026-01-31",
  time: "a time such as 08:00:00",
  duration: "an ISO 8601 duration such as PT5M",
  ipv4: "an IPv4 address",
  ipv6: "an IPv6 address",
  base64: "base64",
  json_string: "JSON",
};
const UNITS: Record<string, string> = {
  string: "characters",
  array: "items",
  object: "fields",
  set: "items",
  map: "entries",
  file: "bytes",
};

/** The value as a person sent it; a number that was kept as it was written is one. */
export function shownValue(value: unknown): string {
  if (value === undefined) return "";
  const raw = (value as { rawJSON?: unknown } | null)?.rawJSON;
  const text = typeof raw === "string" ? raw : typeof value === "number" ? String(value) : JSON.stringify(value);
  return `, not ${text?.slice(0, MAX_SHOWN)}`;
}

/** Types that a union expects, when it expects nothing but types. */
function unionTypes(branches: readonly (readonly z.core.$ZodIssue[])[]): string[] | undefined {
  const types = branches.map(([issue, more]) =>
    issue?.code === "invalid_type" && issue.path.length === 0 && !more ? String(issue.expected) : undefined,
  );
  return types.every((type) => type !== undefined) ? [...new Set(types)] : undefined;
}

/** What is wrong with a value and what is allowed, to be read behind its name: "must be at least 1, not 0". */
export function describeIssue(issue: z.core.$ZodRawIssue): string {
  const given = shownValue(issue.input);
  switch (issue.code) {
    case "invalid_type":
      return issue.input === undefined
        ? `is required (a value of type ${issue.expected})`
        : `must be of type ${issue.expected}${given}`;
    case "invalid_value":
      return `must be one of ${(issue.values as unknown[]).map((value) => JSON.stringify(value)).join(", ")}${given}`;
    case "too_small":
    case "too_big":
      return sizeMistake(issue, given);
    case "invalid_format":
      if (issue.format === "regex") return `must match the pattern ${issue.pattern}${given}`;
      if (issue.format === "starts_with") return `must begin with ${JSON.stringify(issue.prefix)}${given}`;
      if (issue.format === "ends_with") return `must end with ${JSON.stringify(issue.suffix)}${given}`;
      if (issue.format === "includes") return `must contain ${JSON.stringify(issue.includes)}${given}`;
      return `must be ${FORMATS[issue.format as string] ?? `of the format ${issue.format}`}${given}`;
    case "not_multiple_of":
      return `must be a multiple of ${issue.divisor}${given}`;
    case "unrecognized_keys":
      return `there is no ${(issue.keys as string[]).join(", ")} here`;
    case "invalid_union": {
      if (issue.input === undefined) return "is required";
      const types = unionTypes((issue.errors ?? []) as z.core.$ZodIssue[][]);
      return types ? `must be of type ${types.join(" or ")}${given}` : `has none of the allowed forms${given}`;
    }
    case "invalid_key":
      return "has a key that is not allowed";
    default:
      return `is not allowed${given}`;
  }
}

type Size = { code?: unknown; origin?: unknown; minimum?: unknown; maximum?: unknown; inclusive?: unknown };
function sizeMistake(issue: Size, given: string): string {
  const small = issue.code === "too_small";
  const limit = small ? issue.minimum : issue.maximum;
  const unit = UNITS[String(issue.origin)];
  if (!unit) {
    if (issue.inclusive === false) return `must be ${small ? "more" : "less"} than ${limit}${given}`;
    return `must be at ${small ? "least" : "most"} ${limit}${given}`;
  }
  if (small && limit === 1) return "must not be empty";
  const size = `${limit} ${limit === 1 ? unit.replace(/s$/, "") : unit}`;
  return small ? `must have ${size} at least` : `may have ${size} at most`;
}

z.config({ localeError: describeIssue });

type Params = Record<string, unknown>;
type Branch = { keyword: string; params: Params; data: unknown; path: string };

/** The same of a keyword of JSON Schema that a value does not fit. @param params  as ajv gives them */
export function describeKeyword(keyword: string, params: Params, value: unknown): string {
  const given = shownValue(value);
  const size = (origin: string, small: boolean) =>
    sizeMistake({ code: small ? "too_small" : "too_big", origin, minimum: params.limit, maximum: params.limit }, given);
  switch (keyword) {
    case "required":
      return "is required";
    case "type":
      return `must be of type ${String(params.type).replaceAll(",", " or ")}${given}`;
    case "enum":
      return `must be one of ${(params.allowedValues as unknown[]).map((one) => JSON.stringify(one)).join(", ")}${given}`;
    case "const":
      return `must be ${JSON.stringify(params.allowedValue)}${given}`;
    case "minimum":
    case "maximum":
      return `must be at ${keyword === "minimum" ? "least" : "most"} ${params.limit}${given}`;
    case "exclusiveMinimum":
    case "exclusiveMaximum":
      return `must be ${keyword === "exclusiveMinimum" ? "more" : "less"} than ${params.limit}${given}`;
    case "multipleOf":
      return `must be a multiple of ${params.multipleOf}${given}`;
    case "minLength":
    case "maxLength":
      return size("string", keyword === "minLength");
    case "minItems":
    case "maxItems":
      return size("array", keyword === "minItems");
    case "minProperties":
    case "maxProperties":
      return size("object", keyword === "minProperties");
    case "pattern":
      return `must match the pattern ${params.pattern}${given}`;
    case "format":
      return `must be ${FORMATS[String(params.format).replace("date-time", "datetime")] ?? `of the format ${params.format}`}${given}`;
    case "additionalProperties":
    case "unevaluatedProperties":
      return "is no field that is known here; leave it out";
    case "items":
    case "additionalItems":
      return size("array", false);
    case "uniqueItems":
      return `must not have equal items; ${params.j} and ${params.i} are`;
    case "contains":
      return `must have ${params.minContains} or more items of the kind that is asked for`;
    case "dependentRequired":
    case "dependencies":
      return `is required beside ${params.property}`;
    case "anyOf":
    case "oneOf": {
      if (params.passingSchemas) return "fits more than one of the forms that exclude each other";
      return choiceMistake(params, given);
    }
    case "not":
      return "is of a form that is not allowed";
    case "false schema":
      return "is not allowed";
    default:
      return `does not fit the schema's ${keyword}${given}`;
  }
}

/** What each form of a choice misses, the first three. */
function choiceMistake({ branches = [], at = "" }: Params, given: string): string {
  const all = branches as Branch[];
  if (all.length > 0 && all.every(({ keyword, path }) => keyword === "type" && path === at))
    return `must be of type ${[...new Set(all.map(({ params }) => params.type))].join(" or ")}${given}`;
  const said = all.slice(0, 3).map(({ keyword, params, data, path }) => {
    const field = path.slice(String(at).length).replace(/^\./, "");
    return `${field ? `${field} ` : ""}${describeKeyword(keyword, params, data)}`;
  });
  return `has none of the allowed forms${said.length > 0 ? `: ${said.join("; or ")}` : given}`;
}
