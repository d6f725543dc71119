/** What an answer calls its job: the header X-Job-Id, which a service sends back as it came. */
import { short } from "./answer.ts";

const WORDS = {
  other: "its X-Job-Id is",
  unnamed: "its X-Job-Id is missing, unlike before",
  unreadable: "it is not HTTP, unlike what came before",
};

/** The answer is not known to be that of the request: it is nobody's result. */
export class OtherJob extends Error {
  readonly code = "ERR_OTHER_JOB";
  constructor(why: keyof typeof WORDS, named = "") {
    super(`${WORDS[why]} ${short(named, 100)}`.trim());
  }
}

/** Whether an answer's X-Job-Id is the one that was sent. Equal values count once: an intermediary may have doubled the header. */
export function namesJob(header: string | null, jobId: string | undefined): boolean {
  if (header === null || jobId === undefined) return false;
  return header === jobId || header.split(",").every((each) => each.trim() === jobId);
}
