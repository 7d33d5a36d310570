export interface Book {
  id: number;
  title: string;
  author: string;
  year: number;
  read: boolean;
}

export interface Problem {
  field: string;
  message: string;
}

type Rule = (value: unknown) => string | undefined;

/** Checks `input` merged over `base`. Returns the book without its id, or everything wrong with it. */
export function parseBook(
  input: unknown,
  base: Partial<Book>,
  limits: { titleLength: number },
): Omit<Book, "id"> | Problem[] {
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    return [{ field: "", message: "must be an object" }];
  }
  const text: Rule = (v) =>
    typeof v !== "string" || v.trim() === ""
      ? "must be a text that is not empty"
      : v.length > limits.titleLength
        ? `must have at most ${limits.titleLength} characters`
        : undefined;
  const rules: Record<keyof Omit<Book, "id">, Rule> = {
    title: text,
    author: text,
    year: (v) => (Number.isInteger(v) && (v as number) > 0 && (v as number) < 3000 ? undefined : "must be a year"),
    read: (v) => (typeof v === "boolean" ? undefined : "must be true or false"),
  };

  const value: Record<string, unknown> = { ...base, ...input };
  const problems: Problem[] = [];
  for (const [field, rule] of Object.entries(rules)) {
    const message = rule(value[field]);
    if (message !== undefined) problems.push({ field, message });
  }
  for (const field of Object.keys(input)) {
    if (!(field in rules) && field !== "id") problems.push({ field, message: "is not a field of a book" });
  }
  if (problems.length > 0) return problems;
  const { title, author, year, read } = value as unknown as Book;
  return { title: title.trim(), author: author.trim(), year, read };
}
