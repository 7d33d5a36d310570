// HTMLRewriter (Workers runtime API): a response's HTML in, handlers called as its parts come by, HTML out.
// The host tells the tokens apart; selectors are matched, and handlers called, here.

const { createTransform, transformEnqueue, readableState, readableStreamPipeTo } = streamsUnit.get();

const OP_HTML = 7; // sandboxworker/runtime/ops.go
const MAX_PENDING = 2 << 20; // bytes of one token, or of one script
const MAX_DEPTH = 512; // of open elements; what is deeper is not looked at
const voidElements = new SafeSet();
const voidList = ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];
for (let i = 0; i < voidList.length; i++) voidElements.add(voidList[i]);

// Node is an open element.
class Node {
  constructor(name, attrs, parent) {
    this.name = name;
    this.written = name;
    this.attrs = attrs; // name, value, ...
    this.parent = parent;
    this.children = 0;
    this.types = undefined; // SafeMap of names to how many children have it
    this.index = this.typeIndex = 0;
    this.state = undefined; // ElementState, if a handler wanted it
    this.text = this.comments = undefined; // handlers of what is in it
  }
  get(name) {
    const { attrs } = this;
    for (let i = 0; i < attrs.length; i += 2) if (attrs[i] === name) return attrs[i + 1];
    return undefined;
  }
  set(name, value) {
    const { attrs } = this;
    for (let i = 0; i < attrs.length; i += 2) {
      if (attrs[i] !== name) continue;
      if (value === undefined) ArraySplice(attrs, i, 2); else attrs[i + 1] = value;
      return;
    }
    if (value !== undefined) { ArrayPush(attrs, name); ArrayPush(attrs, value); }
  }
  count(child) {
    child.index = ++this.children;
    this.types ??= new SafeMap();
    child.typeIndex = (this.types.get(child.name) ?? 0) + 1;
    this.types.set(child.name, child.typeIndex);
  }
}
bare(Node);

// readHandlers takes the methods of a handler object.
const readHandlers = (v, names, what) => {
  if (!isObject(v)) throw new TypeError(`${what}: the handlers are not an object.`);
  const out = { __proto__: null, self: v };
  for (let i = 0; i < names.length; i++) {
    const f = v[names[i]];
    if (f !== undefined) out[names[i]] = toCallback(f, `${what}: the handler '${names[i]}'`);
  }
  return out;
};

// Pass is one document on its way through.
class Pass {
  constructor(rules, documents) {
    this.rules = rules;
    this.documents = documents;
    this.root = new Node("", [], undefined);
    this.top = this.root;
    this.depth = 0;
    this.muted = undefined; // the element whose content is thrown away
    this.textOpen = false; // a text node has begun and not ended
    this.rest = new Uint8Array(0); // bytes not read yet
    this.raw = "-";
    this.out = bareList(); // bytes to be given
    this.size = 0;
  }
  write(u8) { if (TypedArrayLength(u8) > 0) { this.out[this.out.length] = u8; this.size += TypedArrayLength(u8); } }
  say(s) { if (s !== "" && this.muted === undefined) this.write(host.utf8Encode(s)); }
  flush(c) {
    if (this.size === 0) return;
    const all = new Uint8Array(this.size);
    for (let i = 0, at = 0; i < this.out.length; i++) { TypedArraySet(all, this.out[i], at); at += TypedArrayLength(this.out[i]); }
    this.out = bareList();
    this.size = 0;
    transformEnqueue(c, all);
  }
  // feed takes a chunk, or the end; it gives a promise.
  feed(c, chunk, last) {
    const n = TypedArrayLength(this.rest);
    const data = new Uint8Array(n + TypedArrayLength(chunk));
    TypedArraySet(data, this.rest);
    TypedArraySet(data, chunk, n);
    if (TypedArrayLength(data) > MAX_PENDING + TypedArrayLength(chunk)) throw new TypeError(`HTMLRewriter: a part of the document is over ${MAX_PENDING} bytes long.`);
    return PromiseThen(startOp(OP_HTML, `${last ? 1 : 0} ${this.raw}`, data, (m) => new TypeError(`HTMLRewriter: ${m}.`)), (r) => {
      const space = StringIndexOf(r.meta, " ");
      this.rest = TypedArraySliceU8(data, +StringSlice(r.meta, 0, space));
      this.raw = StringSlice(r.meta, space + 1);
      const tokens = JSONParse(host.utf8Decode(r.data, false, true));
      return PromiseThen(PromiseResolve(this.all(tokens, 0, data, 0)), () => (last ? this.end(c) : this.flush(c)));
    });
  }
  // all does the tokens from i on; where a handler gives a promise, the rest waits for it.
  all(tokens, i, data, at) {
    for (; i < tokens.length; i++) {
      const t = tokens[i], end = +t[1];
      const wait = this.token(t, data, at, end);
      at = end;
      if (isObject(wait)) return PromiseThen(PromiseResolve(wait), () => this.all(tokens, i + 1, data, at));
    }
    return undefined;
  }
  token(t, data, at, end) {
    const bytes = subarrayU8(data, at, end);
    if (t[0] === "t") {
      // More of the node can follow only where the host stopped reading.
      return this.text(bytes, end + TypedArrayLength(this.rest) === TypedArrayLength(data) && this.raw === "-");
    }
    const closed = this.closeText();
    const go = () => (t[0] === "s" ? this.startTag(t, bytes) : t[0] === "e" ? this.endTag(t[2], bytes)
      : t[0] === "c" ? this.comment(t[2], bytes) : this.doctype(t[2], bytes));
    return isObject(closed) ? PromiseThen(PromiseResolve(closed), go) : go();
  }
  // run calls handlers one after the other with a token; done when all are.
  run(handlers, token, state, done) {
    const next = (i) => {
      for (; i < handlers.length; i++) {
        const wait = ReflectApply(handlers[i].f, handlers[i].self, [token]);
        if (isObject(wait)) return PromiseThen(PromiseResolve(wait), () => next(i + 1));
      }
      state.alive = false;
      return done();
    };
    return next(0);
  }
  handlersOf(key, field) {
    const out = bareList();
    for (let n = this.top; n !== undefined; n = n.parent) {
      const list = n[key];
      if (list !== undefined) for (let i = 0; i < list.length; i++) out[out.length] = list[i];
    }
    for (let i = 0; i < this.documents.length; i++) {
      const d = this.documents[i];
      if (d[field] !== undefined) out[out.length] = { __proto__: null, f: d[field], self: d.self };
    }
    return out;
  }
  text(bytes, open) {
    this.textOpen = open;
    if (this.muted !== undefined) return undefined;
    const handlers = this.handlersOf("text", "text");
    if (handlers.length === 0) { this.write(bytes); return undefined; }
    return this.textChunk(handlers, bytes, !open);
  }
  closeText() {
    if (!this.textOpen) return undefined;
    this.textOpen = false;
    if (this.muted !== undefined) return undefined;
    const handlers = this.handlersOf("text", "text");
    return handlers.length === 0 ? undefined : this.textChunk(handlers, new Uint8Array(0), true);
  }
  textChunk(handlers, bytes, last) {
    const s = new Mutations();
    s.text = host.utf8Decode(bytes, false, true);
    s.last = last;
    return this.run(handlers, new Text(kInternal, s), s, () => {
      this.say(s.before);
      if (s.replacement === undefined) this.write(bytes); else this.say(s.replacement);
      this.say(s.after);
    });
  }
  comment(text, bytes) {
    if (this.muted !== undefined) return undefined;
    const handlers = this.handlersOf("comments", "comments");
    if (handlers.length === 0) { this.write(bytes); return undefined; }
    const s = new Mutations();
    s.text = text;
    s.changed = false;
    return this.run(handlers, new Comment(kInternal, s), s, () => {
      this.say(s.before);
      if (s.replacement !== undefined) this.say(s.replacement);
      else if (s.changed) this.say(`<!--${s.text}-->`);
      else this.write(bytes);
      this.say(s.after);
    });
  }
  doctype(text, bytes) {
    const handlers = bareList();
    for (let i = 0; i < this.documents.length; i++) {
      const d = this.documents[i];
      if (d.doctype !== undefined) handlers[handlers.length] = { __proto__: null, f: d.doctype, self: d.self };
    }
    if (this.muted !== undefined) return undefined;
    const s = doctypeState(text);
    return this.run(handlers, new Doctype(kInternal, s), s, () => this.write(bytes));
  }
  startTag(t, bytes) {
    const name = t[2], attrs = ArraySlice(t, 4), node = new Node(name, attrs, this.top);
    this.top.count(node);
    const leaf = voidElements.has(name) || t[3] === "1";
    if (this.depth >= MAX_DEPTH) { if (this.muted === undefined) this.write(bytes); return undefined; }
    const open = () => { if (!leaf) { this.top = node; this.depth++; } };
    if (this.muted !== undefined) { open(); return undefined; }
    const handlers = bareList();
    for (let i = 0; i < this.rules.length; i++) {
      const r = this.rules[i];
      if (!selectorMatches(r.selector, node)) continue;
      const h = r.handlers;
      if (h.element !== undefined) handlers[handlers.length] = { __proto__: null, f: h.element, self: h.self };
      if (h.text !== undefined) { node.text ??= bareList(); node.text[node.text.length] = { __proto__: null, f: h.text, self: h.self }; }
      if (h.comments !== undefined) { node.comments ??= bareList(); node.comments[node.comments.length] = { __proto__: null, f: h.comments, self: h.self }; }
    }
    if (handlers.length === 0) { this.write(bytes); open(); return undefined; }
    const s = node.state = new ElementState(node);
    return this.run(handlers, new Element(kInternal, s), s, () => {
      this.say(s.before);
      const gone = s.replacement !== undefined;
      if (gone) this.say(s.replacement);
      else if (!s.unwrap) { if (s.changed) this.say(writeTag(node, t[3] === "1")); else this.write(bytes); }
      if (leaf) { this.say(s.after); return; }
      if (!gone) { this.say(s.prepend); if (s.inner !== undefined) this.say(s.inner); }
      open();
      if (gone || s.inner !== undefined) this.muted = node;
    });
  }
  // endTag closes the innermost element of its name, and those in it that nobody closed.
  endTag(name, bytes) {
    let n = this.top;
    while (n !== this.root && n.name !== name) n = n.parent;
    if (n === this.root) { if (this.muted === undefined) this.write(bytes); return undefined; }
    return this.close(n, bytes);
  }
  close(last, bytes) {
    const n = this.top;
    const own = n === last ? bytes : undefined; // the others have no end tag
    const wait = this.closeOne(n, own);
    const go = () => (n === last ? undefined : this.close(last, bytes));
    return isObject(wait) ? PromiseThen(PromiseResolve(wait), go) : go();
  }
  closeOne(n, bytes) {
    const s = n.state;
    const pop = () => { this.top = n.parent; this.depth--; };
    if (this.muted === n) this.muted = undefined;
    if (s === undefined) {
      if (bytes !== undefined && this.muted === undefined) this.write(bytes);
      pop();
      return undefined;
    }
    const gone = s.replacement !== undefined;
    const e = new Mutations();
    e.name = n.written;
    e.changed = s.changed && n.written !== n.name;
    const handlers = bareList();
    if (bytes !== undefined && !gone) for (let i = 0; i < s.onEnd.length; i++) handlers[i] = { __proto__: null, f: s.onEnd[i], self: undefined };
    return this.run(handlers, new EndTag(kInternal, e), e, () => {
      if (!gone) this.say(s.append);
      this.say(e.before);
      if (!gone && !s.unwrap && e.replacement === undefined && bytes !== undefined) {
        if (e.changed) this.say(`</${e.name}>`); else if (this.muted === undefined) this.write(bytes);
      }
      this.say(e.after);
      this.say(s.after);
      pop();
    });
  }
  end(c) {
    const closed = this.closeText();
    return PromiseThen(PromiseResolve(closed), () => PromiseThen(PromiseResolve(this.top === this.root ? undefined : this.closeAll()), () => {
      const handlers = bareList();
      for (let i = 0; i < this.documents.length; i++) {
        const d = this.documents[i];
        if (d.end !== undefined) handlers[handlers.length] = { __proto__: null, f: d.end, self: d.self };
      }
      const s = new Mutations();
      return this.run(handlers, new DocumentEnd(kInternal, s), s, () => { this.say(s.after); this.flush(c); });
    }));
  }
  closeAll() {
    if (this.top === this.root) return undefined;
    const wait = this.closeOne(this.top, undefined);
    return isObject(wait) ? PromiseThen(PromiseResolve(wait), () => this.closeAll()) : this.closeAll();
  }
}
bare(Pass);

const writeTag = (node, self) => {
  let out = `<${node.written}`;
  for (let i = 0; i < node.attrs.length; i += 2) out += ` ${node.attrs[i]}="${escapeValue(node.attrs[i + 1])}"`;
  return `${out}${self ? " />" : ">"}`;
};

class HTMLRewriter {
  #rules = bareList(); #documents = bareList();
  constructor() {}
  on(selector, handlers) {
    const rules = this.#rules;
    needArgs("HTMLRewriter.on", arguments.length, 2);
    const text = toUSVString(selector);
    const rule = { __proto__: null, selector: parseSelector(text), handlers: readHandlers(handlers, ["element", "comments", "text"], "HTMLRewriter.on") };
    rules[rules.length] = rule;
    return this;
  }
  onDocument(handlers) {
    const documents = this.#documents;
    needArgs("HTMLRewriter.onDocument", arguments.length, 1);
    documents[documents.length] = readHandlers(handlers, ["doctype", "comments", "text", "end"], "HTMLRewriter.onDocument");
    return this;
  }
  transform(response) {
    const rules = this.#rules, documents = this.#documents;
    needArgs("HTMLRewriter.transform", arguments.length, 1);
    if (!isResponse(response)) throw new TypeError("HTMLRewriter.transform: the argument is not a Response.");
    const from = responseState(response);
    if (from.body !== null && bodyUnusable(from.body)) throw new TypeError("HTMLRewriter.transform: the response's body was already used.");
    const s = new ResponseState();
    s.status = from.status;
    s.statusText = from.statusText;
    s.headers = responseHeaders(from).copy();
    s.headers.delete("content-length");
    if (from.body === null) return new Response(kInternal, s);
    const pass = new Pass(rules, documents);
    const t = createTransform((chunk, c) => pass.feed(c, copyBytes(chunk), false), (c) => pass.feed(c, new Uint8Array(0), true), undefined);
    const source = readableState(bodyStream(from.body));
    markHandled(readableStreamPipeTo(source, t.writable, { __proto__: null, preventAbort: false, preventCancel: false, preventClose: false, signal: undefined }));
    s.body = new Body(B_STREAM, undefined);
    s.body.stream = t.readable.wrapper;
    return new Response(kInternal, s);
  }
}
defineInterface(HTMLRewriter, "HTMLRewriter");

return { __proto__: null, HTMLRewriter };
