// What the handlers of HTMLRewriter get: elements, end tags, text, comments, the doctype, the end
// (Workers runtime API). Each is good for the call it was made for.

const escapeText = (s) => {
  let out = "";
  for (let i = 0; i < s.length; i++) {
    const c = s[i];
    out += c === "&" ? "&amp;" : c === "<" ? "&lt;" : c === ">" ? "&gt;" : c;
  }
  return out;
};
const escapeValue = (s) => {
  let out = "";
  for (let i = 0; i < s.length; i++) out += s[i] === "\"" ? "&quot;" : s[i] === "&" ? "&amp;" : s[i];
  return out;
};
const toContent = (content, options) => {
  const s = toUSVString(content);
  return toDictionary(options, "content options").html ? s : escapeText(s);
};

// Mutations collects what a handler wants around and instead of a token.
class Mutations {
  constructor() { this.before = this.after = ""; this.replacement = undefined; this.alive = true; }
  use() {
    if (!this.alive) throw new TypeError("This content token is no longer valid. Content tokens are only valid during the execution of the relevant content handler.");
    return this;
  }
}
bare(Mutations);
class ElementState extends Mutations {
  constructor(node) {
    super();
    this.node = node;
    this.prepend = this.append = "";
    this.inner = undefined; // in place of what it holds
    this.unwrap = false; // its tags go, what it holds stays
    this.changed = false; // the start tag must be written anew
    this.onEnd = bareList();
  }
}

const needToken = (v, what) => { if (v === undefined) throw illegalConstructor(); return v; };
const mutationMethods = (C, stateOf) => {
  const members = {
    before(content, options = undefined) { const m = stateOf(this).use(); needArgs("before", arguments.length, 1); m.before += toContent(content, options); return this; },
    after(content, options = undefined) { const m = stateOf(this).use(); needArgs("after", arguments.length, 1); m.after = toContent(content, options) + m.after; return this; },
    replace(content, options = undefined) { const m = stateOf(this).use(); needArgs("replace", arguments.length, 1); m.replacement = toContent(content, options); return this; },
    remove() { const m = stateOf(this).use(); m.replacement ??= ""; return this; },
    get removed() { return stateOf(this).use().replacement !== undefined || stateOf(this).unwrap === true; },
  };
  const keys = ReflectOwnKeys(members);
  for (let i = 0; i < keys.length; i++) ObjectDefineProperty(C.prototype, keys[i], ObjectGetOwnPropertyDescriptor(members, keys[i]));
};

const tagNameForm = /^[a-zA-Z][^\s/>\0]*$/, attributeForm = /^[^\s/>"'=\0]+$/;
const arrayValues = Array.prototype.values;
let elementState;
class Element {
  #s;
  static { elementState = (v) => v.#s; }
  constructor() { this.#s = needToken(arguments[0] === kInternal ? arguments[1] : undefined); }
  get tagName() { return this.#s.use().node.name; }
  set tagName(v) {
    const s = this.#s.use(), name = toUSVString(v);
    if (RegExpExec(tagNameForm, name) === null) throw new TypeError("HTMLRewriter: this is not a valid tag name.");
    s.node.written = name;
    s.changed = true;
  }
  get attributes() {
    const { attrs } = this.#s.use().node, list = [];
    for (let i = 0; i < attrs.length; i += 2) ArrayPush(list, [attrs[i], attrs[i + 1]]);
    return ReflectApply(arrayValues, list, []);
  }
  get namespaceURI() { void this.#s.use(); return "http://www.w3.org/1999/xhtml"; }
  getAttribute(name) { const s = this.#s.use(); needArgs("getAttribute", arguments.length, 1); return s.node.get(StringToLowerCase(toUSVString(name))) ?? null; }
  hasAttribute(name) { const s = this.#s.use(); needArgs("hasAttribute", arguments.length, 1); return s.node.get(StringToLowerCase(toUSVString(name))) !== undefined; }
  setAttribute(name, value) {
    const s = this.#s.use();
    needArgs("setAttribute", arguments.length, 2);
    const key = StringToLowerCase(toUSVString(name)), v = toUSVString(value);
    if (RegExpExec(attributeForm, key) === null) throw new TypeError("HTMLRewriter: this is not a valid attribute name.");
    s.node.set(key, v);
    s.changed = true;
    return this;
  }
  removeAttribute(name) {
    const s = this.#s.use();
    needArgs("removeAttribute", arguments.length, 1);
    s.node.set(StringToLowerCase(toUSVString(name)), undefined);
    s.changed = true;
    return this;
  }
  prepend(content, options = undefined) { const s = this.#s.use(); needArgs("prepend", arguments.length, 1); s.prepend = toContent(content, options) + s.prepend; return this; }
  append(content, options = undefined) { const s = this.#s.use(); needArgs("append", arguments.length, 1); s.append += toContent(content, options); return this; }
  setInnerContent(content, options = undefined) {
    const s = this.#s.use();
    needArgs("setInnerContent", arguments.length, 1);
    s.inner = toContent(content, options);
    s.prepend = s.append = "";
    return this;
  }
  removeAndKeepContent() { this.#s.use().unwrap = true; return this; }
  onEndTag(handler) {
    const s = this.#s.use();
    needArgs("onEndTag", arguments.length, 1);
    s.onEnd[s.onEnd.length] = toCallback(handler, "onEndTag: the handler");
  }
}
mutationMethods(Element, (v) => elementState(v));
defineInterface(Element, "Element");

let endTagState;
class EndTag {
  #s;
  static { endTagState = (v) => v.#s; }
  constructor() { this.#s = needToken(arguments[0] === kInternal ? arguments[1] : undefined); }
  get name() { return this.#s.use().name; }
  set name(v) {
    const s = this.#s.use(), name = toUSVString(v);
    if (RegExpExec(tagNameForm, name) === null) throw new TypeError("HTMLRewriter: this is not a valid tag name.");
    s.name = name;
    s.changed = true;
  }
}
mutationMethods(EndTag, (v) => endTagState(v));
delete EndTag.prototype.replace;
delete EndTag.prototype.removed;
defineInterface(EndTag, "EndTag");

let textState;
class Text {
  #s;
  static { textState = (v) => v.#s; }
  constructor() { this.#s = needToken(arguments[0] === kInternal ? arguments[1] : undefined); }
  get text() { return this.#s.use().text; }
  get lastInTextNode() { return this.#s.use().last; }
}
mutationMethods(Text, (v) => textState(v));
defineInterface(Text, "Text");

let commentState;
class Comment {
  #s;
  static { commentState = (v) => v.#s; }
  constructor() { this.#s = needToken(arguments[0] === kInternal ? arguments[1] : undefined); }
  get text() { return this.#s.use().text; }
  set text(v) {
    const s = this.#s.use(), text = toUSVString(v);
    if (StringIncludes(text, "-->")) throw new TypeError("HTMLRewriter: a comment cannot hold -->.");
    s.text = text;
    s.changed = true;
  }
}
mutationMethods(Comment, (v) => commentState(v));
defineInterface(Comment, "Comment");

class Doctype {
  #s;
  constructor() { this.#s = needToken(arguments[0] === kInternal ? arguments[1] : undefined); }
  get name() { return this.#s.use().name; }
  get publicId() { return this.#s.use().publicId; }
  get systemId() { return this.#s.use().systemId; }
}
defineInterface(Doctype, "Doctype");
const doctypeForm = /^\s*([^\s>]+)?\s*(?:public\s*(?:"([^"]*)"|'([^']*)')\s*(?:"([^"]*)"|'([^']*)')?|system\s*(?:"([^"]*)"|'([^']*)'))?/i;
const doctypeState = (text) => {
  const s = new Mutations(), m = RegExpExec(doctypeForm, text);
  s.name = m[1] === undefined ? null : StringToLowerCase(m[1]);
  s.publicId = m[2] ?? m[3] ?? null;
  s.systemId = m[4] ?? m[5] ?? m[6] ?? m[7] ?? null;
  return s;
};

class DocumentEnd {
  #s;
  constructor() { this.#s = needToken(arguments[0] === kInternal ? arguments[1] : undefined); }
  append(content, options = undefined) { const s = this.#s.use(); needArgs("append", arguments.length, 1); s.after += toContent(content, options); return this; }
}
defineInterface(DocumentEnd, "DocumentEnd");
