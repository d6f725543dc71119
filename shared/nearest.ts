/** A suggestion for a word that is not known. */

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
