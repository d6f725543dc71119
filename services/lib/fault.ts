/**
 * An error the caller can read and act on. Everything else that is thrown is our own defect and answers 500.
 *
 * 400 the request names something it may not · 404 a file is missing · 422 the schema or the model is unusable ·
 * 500 our side failed (disk full, the work process was killed).
 */
export class Fault extends Error {
  override readonly name = "Fault";

  constructor(
    readonly status: 400 | 404 | 422 | 500,
    /** One readable sentence; it becomes the `detail` of the answer. */
    detail: string,
  ) {
    super(detail);
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
