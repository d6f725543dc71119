/** A suggestion for a word that is not known. */

/**
 * Variables of the environment that look like one that is read, but are not. They may belong to another program, so this is a
 * warning, and only what is nearly the same counts.
 * @param known  names that are read
 * @param used   names that a file refers to
 * @returns a sentence for each of them
 */
export function mistypedVariables(
  names: Iterable<string>,
  known: readonly string[],
  used?: Iterable<string>,
): Map<string, string> {
  const read = new Set([...known, ...(used ?? [])]);
  const sentences = [...names].flatMap((name): [string, string][] => {
    if (read.has(name) || name.length < 4) return [];
    const upper = name.toUpperCase().replaceAll("-", "_");
    const [near] = known
      .map((word) => ({ word, d: distance(upper, word) }))
      .filter(({ word, d }) => d <= (Math.min(upper.length, word.length) < 8 ? 1 : 2))
      .sort((a, b) => a.d - b.d);
    return near ? [[name, `The variable ${name} is not read; did you mean ${near.word}?`]] : [];
  });
  return new Map(sentences);
}

/** The known word that is most like `text`; undefined when none is near. */
export function nearest(text: string, known: Iterable<string>): string | undefined {
  const best = [...known].map((word) => ({ word, d: distance(text, word) })).sort((a, b) => a.d - b.d)[0];
  return best && best.d <= Math.max(2, text.length / 3) ? best.word : undefined;
}

/** Edits between two short texts (Levenshtein), for a suggestion. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= Math.min(a.length, 200); i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(
        (row[j] as number) + 1,
        (next[j - 1] as number) + 1,
        (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1),
      );
    }
    row = next;
  }
  return row[b.length] as number;
}
