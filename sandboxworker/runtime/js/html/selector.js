// The selectors of HTMLRewriter: what can be decided when a start tag is seen. Compound selectors with
// descendant and child combinators, in lists.

const badSelector = (text) => new TypeError(`HTMLRewriter: the selector ${JSONStringify(StringSlice(text, 0, 100))} is not valid or not supported.`);
const MAX_SELECTOR = 4096;

const isNameChar = (s, i) => {
  const c = StringCharCodeAt(s, i);
  return (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || (c >= 48 && c <= 57) || c === 45 || c === 95 || c > 127;
};
const isSpace = (c) => c === " " || c === "\t" || c === "\n" || c === "\r" || c === "\f";

// SelectorParser makes a list of complex selectors: each an array of {test functions, combinator}, the last
// compound first.
class SelectorParser {
  constructor(text) { this.text = text; this.at = 0; }
  fail() { return badSelector(this.text); }
  space() { const from = this.at; while (this.at < this.text.length && isSpace(this.text[this.at])) this.at++; return this.at > from; }
  name() {
    let out = "";
    for (;;) {
      if (this.text[this.at] === "\\" && this.at + 1 < this.text.length) { out += this.text[this.at + 1]; this.at += 2; }
      else if (this.at < this.text.length && isNameChar(this.text, this.at)) out += this.text[this.at++];
      else break;
    }
    if (out === "") throw this.fail();
    return out;
  }
  take(c) { if (this.text[this.at] !== c) return false; this.at++; return true; }
  list() {
    const out = bareList();
    for (;;) {
      out[out.length] = this.complex();
      if (this.at >= this.text.length) return out;
      if (!this.take(",")) throw this.fail();
    }
  }
  complex() {
    let chain; // {tests, child, before}: the compound, whether it must be the parent's child, what is left of it
    let child = false;
    this.space();
    for (;;) {
      chain = { __proto__: null, tests: this.compound(), child, before: chain };
      const spaced = this.space();
      if (this.at >= this.text.length || this.text[this.at] === ",") return chain;
      if (this.take(">")) { child = true; this.space(); } else if (spaced) child = false; else throw this.fail();
    }
  }
  compound() {
    const tests = bareList();
    const add = (f) => { tests[tests.length] = f; };
    if (this.take("*")) add(() => true);
    else if (this.at < this.text.length && isNameChar(this.text, this.at)) {
      const name = StringToLowerCase(this.name());
      add((e) => e.name === name);
    }
    for (;;) {
      if (this.take("#")) { const id = this.name(); add((e) => e.get("id") === id); }
      else if (this.take(".")) { const c = this.name(); add((e) => hasWord(e.get("class"), c)); }
      else if (this.take("[")) add(this.attribute());
      else if (this.take(":")) add(this.pseudo());
      else break;
    }
    if (tests.length === 0) throw this.fail();
    return tests;
  }
  attribute() {
    this.space();
    const name = StringToLowerCase(this.name());
    this.space();
    if (this.take("]")) return (e) => e.get(name) !== undefined;
    let op = this.text[this.at++];
    if (op !== "=") {
      if (!StringIncludes("~|^$*", op ?? "x") || !this.take("=")) throw this.fail();
    }
    this.space();
    let value = "";
    const quote = this.text[this.at];
    if (quote === "\"" || quote === "'") {
      this.at++;
      while (this.at < this.text.length && this.text[this.at] !== quote) {
        if (this.text[this.at] === "\\") this.at++;
        value += this.text[this.at++] ?? "";
      }
      if (!this.take(quote)) throw this.fail();
    } else {
      value = this.name();
    }
    this.space();
    let fold = false;
    if (this.take("i") || this.take("I")) fold = true; else if (!this.take("s")) this.take("S");
    this.space();
    if (!this.take("]")) throw this.fail();
    const want = fold ? StringToLowerCase(value) : value;
    return (e) => {
      let v = e.get(name);
      if (v === undefined) return false;
      if (fold) v = StringToLowerCase(v);
      switch (op) {
        case "=": return v === want;
        case "~": return hasWord(v, want);
        case "|": return v === want || StringStartsWith(v, `${want}-`);
        case "^": return want !== "" && StringStartsWith(v, want);
        case "$": return want !== "" && StringEndsWith(v, want);
        default: return want !== "" && StringIncludes(v, want);
      }
    };
  }
  pseudo() {
    const name = StringToLowerCase(this.name());
    if (name === "first-child") return (e) => e.index === 1;
    if (name === "first-of-type") return (e) => e.typeIndex === 1;
    if (!this.take("(")) throw this.fail();
    if (name === "not") {
      this.space();
      const tests = this.compound();
      this.space();
      if (!this.take(")")) throw this.fail();
      return (e) => !passes(tests, e);
    }
    if (name !== "nth-child" && name !== "nth-of-type") throw this.fail();
    let text = "";
    while (this.at < this.text.length && this.text[this.at] !== ")") { if (!isSpace(this.text[this.at])) text += this.text[this.at]; this.at++; }
    if (!this.take(")")) throw this.fail();
    text = StringToLowerCase(text);
    const m = text === "odd" ? [0, "2", "1"] : text === "even" ? [0, "2", "0"] : RegExpExec(nth, text);
    if (m === null) throw this.fail();
    const a = m[1] === undefined ? 0 : m[1] === "" || m[1] === "+" ? 1 : m[1] === "-" ? -1 : +m[1];
    const b = m[3] !== undefined ? +m[3] : +(m[2] ?? 0);
    const ofType = name === "nth-of-type";
    return (e) => {
      const d = (ofType ? e.typeIndex : e.index) - b;
      return a === 0 ? d === 0 : d % a === 0 && d / a >= 0;
    };
  }
}
bare(SelectorParser);
const nth = /^(?:([+-]?\d*)n([+-]\d+)?|([+-]?\d+))$/;

const hasWord = (v, word) => {
  if (v === undefined || word === "") return false;
  for (let i = StringIndexOf(v, word); i >= 0; i = StringIndexOf(v, word, i + 1)) {
    const end = i + word.length;
    if ((i === 0 || isSpace(v[i - 1])) && (end === v.length || isSpace(v[end]))) return true;
  }
  return false;
};
const passes = (tests, e) => {
  for (let i = 0; i < tests.length; i++) if (!tests[i](e)) return false;
  return true;
};
// chainMatches looks at an element and those it is in. A child combinator speaks of the parent, any other
// of some ancestor: going back over both is what the depth bound of the stack keeps cheap.
const chainMatches = (chain, e) => {
  if (!passes(chain.tests, e)) return false;
  const { before } = chain;
  if (before === undefined) return true;
  if (chain.child) return e.parent !== undefined && chainMatches(before, e.parent);
  for (let p = e.parent; p !== undefined; p = p.parent) if (chainMatches(before, p)) return true;
  return false;
};
const parseSelector = (text) => {
  if (text.length > MAX_SELECTOR) throw badSelector(text);
  return new SelectorParser(text).list();
};
const selectorMatches = (list, e) => {
  for (let i = 0; i < list.length; i++) if (chainMatches(list[i], e)) return true;
  return false;
};
