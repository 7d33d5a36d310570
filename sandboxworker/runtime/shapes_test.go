package runtime_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// shapes is the Minimum Common Web API (ECMA-429, https://min-common-api.proposal.wintertc.org/) as its
// specifications' IDL has it, with what Workers add to it. One interface a line:
//
//	Name[:Parent] CONSTRUCTOR member ...
//
// CONSTRUCTOR is new/N (N required arguments) or illegal. A member is name/N (operation), name/N! (one
// that returns a promise), name (read-only attribute), name= (writable), name! (attribute that is a promise),
// static.X, const.NAME, @name (Symbol.iterator or asyncIterator, the same function as name),
// own.name (on each instance, not configurable).
const shapes = `
AbortController new/0 signal abort/0
AbortSignal:EventTarget illegal static.abort/0 static.timeout/1 static.any/1 aborted reason throwIfAborted/0 onabort=
Blob new/0 size type slice/0 stream/0 text/0! arrayBuffer/0! bytes/0!
ByteLengthQueuingStrategy new/1 highWaterMark size
CompressionStream new/1 readable writable
CountQueuingStrategy new/1 highWaterMark size
Crypto illegal subtle getRandomValues/1 randomUUID/0
CryptoKey illegal type extractable algorithm usages
CustomEvent:Event new/1 detail initCustomEvent/1
DecompressionStream new/1 readable writable
DOMException:Error new/0 name message code const.INDEX_SIZE_ERR const.DOMSTRING_SIZE_ERR const.HIERARCHY_REQUEST_ERR const.WRONG_DOCUMENT_ERR const.INVALID_CHARACTER_ERR const.NO_DATA_ALLOWED_ERR const.NO_MODIFICATION_ALLOWED_ERR const.NOT_FOUND_ERR const.NOT_SUPPORTED_ERR const.INUSE_ATTRIBUTE_ERR const.INVALID_STATE_ERR const.SYNTAX_ERR const.INVALID_MODIFICATION_ERR const.NAMESPACE_ERR const.INVALID_ACCESS_ERR const.VALIDATION_ERR const.TYPE_MISMATCH_ERR const.SECURITY_ERR const.NETWORK_ERR const.ABORT_ERR const.URL_MISMATCH_ERR const.QUOTA_EXCEEDED_ERR const.TIMEOUT_ERR const.INVALID_NODE_TYPE_ERR const.DATA_CLONE_ERR
ErrorEvent:Event new/1 message filename lineno colno error
Event new/1 type target srcElement currentTarget composedPath/0 eventPhase stopPropagation/0 cancelBubble= stopImmediatePropagation/0 bubbles cancelable returnValue= preventDefault/0 defaultPrevented composed own.isTrusted timeStamp initEvent/1 const.NONE const.CAPTURING_PHASE const.AT_TARGET const.BUBBLING_PHASE
EventTarget new/0 addEventListener/2 removeEventListener/2 dispatchEvent/1
File:Blob new/2 name lastModified
FormData new/0 append/2 delete/1 get/1 getAll/1 has/1 set/2 entries/0 forEach/1 keys/0 values/0 @entries
Headers new/0 append/2 delete/1 get/1 getSetCookie/0 has/1 set/2 entries/0 forEach/1 keys/0 values/0 @entries
MessageChannel new/0 port1 port2
MessageEvent:Event new/1 data origin lastEventId source ports initMessageEvent/1
MessagePort:EventTarget illegal postMessage/1 start/0 close/0 onmessage= onmessageerror= onclose=
FileReader:EventTarget new/0 readAsArrayBuffer/1 readAsBinaryString/1 readAsText/1 readAsDataURL/1 abort/0 readyState result error onloadstart= onprogress= onload= onabort= onerror= onloadend= const.EMPTY const.LOADING const.DONE
Performance:EventTarget illegal now/0 timeOrigin toJSON/0 getEntries/0 getEntriesByType/1 getEntriesByName/1 mark/1 clearMarks/0 measure/1 clearMeasures/0
PerformanceEntry illegal name entryType startTime duration toJSON/0
PerformanceMark:PerformanceEntry new/1 detail
PerformanceMeasure:PerformanceEntry illegal detail
ProgressEvent:Event new/1 lengthComputable loaded total
PromiseRejectionEvent:Event new/2 promise reason
ReadableByteStreamController illegal byobRequest desiredSize close/0 enqueue/1 error/0
ReadableStream new/0 static.from/1 locked cancel/0! getReader/0 pipeThrough/1 pipeTo/1! tee/0 values/0 @values
ReadableStreamBYOBReader new/1 closed! cancel/0! read/1! releaseLock/0
ReadableStreamBYOBRequest illegal view respond/1 respondWithNewView/1
ReadableStreamDefaultController illegal desiredSize close/0 enqueue/0 error/0
ReadableStreamDefaultReader new/1 closed! cancel/0! read/0! releaseLock/0
Request new/1 method url headers destination referrer referrerPolicy mode credentials cache redirect integrity keepalive duplex signal isReloadNavigation isHistoryNavigation body bodyUsed arrayBuffer/0! blob/0! bytes/0! formData/0! json/0! text/0! clone/0
Response new/0 static.error/0 static.redirect/1 static.json/1 type url redirected status ok statusText headers body bodyUsed arrayBuffer/0! blob/0! bytes/0! formData/0! json/0! text/0! clone/0 webSocket
SubtleCrypto illegal encrypt/3! decrypt/3! sign/3! verify/4! digest/2! generateKey/3! deriveKey/5! deriveBits/2! importKey/5! exportKey/2! wrapKey/4! unwrapKey/7!
TextDecoder new/0 encoding fatal ignoreBOM decode/0
TextDecoderStream new/0 encoding fatal ignoreBOM readable writable
TextEncoder new/0 encoding encode/0 encodeInto/2
TextEncoderStream new/0 encoding readable writable
TransformStream new/0 readable writable
TransformStreamDefaultController illegal desiredSize enqueue/0 error/0 terminate/0
URL new/1 static.parse/1 static.canParse/1 static.createObjectURL/1 static.revokeObjectURL/1 href= origin protocol= username= password= host= hostname= port= pathname= search= searchParams hash= toJSON/0
URLPattern new/0 test/0 exec/0 protocol username password hostname port pathname search hash hasRegExpGroups
URLSearchParams new/0 size append/2 delete/1 get/1 getAll/1 has/1 set/2 sort/0 toString/0 entries/0 forEach/1 keys/0 values/0 @entries
WritableStream new/0 locked abort/0! close/0! getWriter/0
WritableStreamDefaultController illegal error/0 signal
WritableStreamDefaultWriter new/1 closed! desiredSize ready! abort/0! close/0! releaseLock/0 write/0!
CloseEvent:Event new/1 wasClean code reason
Navigator illegal userAgent hardwareConcurrency language
IdentityTransformStream:TransformStream new/0
FixedLengthStream:IdentityTransformStream new/1
HTMLRewriter new/0 on/2 onDocument/1 transform/1
Cache illegal add/1! addAll/1! delete/1! match/1! put/2!
CacheStorage illegal default open/1!
`

// globals are the members of the global object itself: name/N (function), name (attribute without a
// setter of its own: a replaceable one), name= (event handler).
const globals = `atob/1 btoa/1 clearInterval/0 clearTimeout/0 fetch/1 queueMicrotask/1 reportError/1 setInterval/1 setTimeout/1
structuredClone/1 addEventListener/2 removeEventListener/2 dispatchEvent/1 caches crypto navigator performance self scheduler
onerror= onunhandledrejection= onrejectionhandled=`

// missing lists what of shapes does not exist yet, as Interface or Interface.member. It may only
// shrink: an entry that exists fails the test, and so does anything missing that is not listed.
var missing = []string{}

// Every interface of the Minimum Common Web API is there and has the properties its IDL gives it.
func TestMinimumCommonShapes(t *testing.T) {
	args, err := json.Marshal(map[string]any{"shapes": strings.TrimSpace(shapes), "globals": globals, "missing": missing})
	if err != nil {
		t.Fatal(err)
	}
	script(t, "const given = "+string(args)+";"+shapeChecks)
}

const shapeChecks = `
const own = Object.getOwnPropertyDescriptor, absent = new Set(given.missing), seen = new Set();
const gone = (path) => { seen.add(path); if (!absent.has(path)) fail(path + " is missing"); };
const here = (path) => { if (absent.has(path)) fail(path + " exists: take it off the list of what is missing"); };
const foreign = async (f, promise, what) => { // a foreign this: TypeError, thrown or as a rejection
  let r; try { r = f(); } catch (e) { if (promise) fail(what + " throws on a foreign this instead of rejecting"); else check(e, TypeError, what + " on a foreign this"); return; }
  if (!promise) { fail(what + " takes a foreign this"); return; }
  await rejects(r, TypeError, what + " on a foreign this");
};
const func = (d, want, path, enumerable = true) => {
  eq([typeof d.value, d.writable, d.enumerable, d.configurable], ["function", true, enumerable, true], path + " descriptor");
  if (typeof d.value !== "function") return;
  const name = own(d.value, "name"), length = own(d.value, "length");
  eq([name.value, name.writable, name.enumerable, name.configurable], [want.name, false, false, true], path + ".name");
  eq([length.value, length.writable, length.enumerable, length.configurable], [want.length, false, false, true], path + ".length");
  try { Reflect.construct(Object, [], d.value); fail(path + " is a constructor"); } catch (e) { check(e, TypeError, path + " as new.target"); }
};
for (const line of given.shapes.split("\n")) {
  const [head, ctor, ...members] = line.split(" ");
  const [name, parent] = head.split(":");
  const gd = own(globalThis, name);
  if (gd === undefined) { gone(name); continue; }
  here(name);
  eq([typeof gd.value, gd.writable, gd.enumerable, gd.configurable], ["function", true, false, true], name + " on the global");
  const C = globalThis[name], P = C.prototype;
  eq(own(C, "name"), { value: name, writable: false, enumerable: false, configurable: true }, name + ".name");
  eq(own(C, "length"), { value: ctor === "illegal" ? 0 : +ctor.slice(4), writable: false, enumerable: false, configurable: true }, name + ".length");
  const pd = own(C, "prototype"); eq([pd.writable, pd.enumerable, pd.configurable], [false, false, false], name + ".prototype");
  eq(own(P, "constructor"), { value: C, writable: true, enumerable: false, configurable: true }, name + ".prototype.constructor"); ok(P.constructor === C, name + " constructor");
  eq(own(P, Symbol.toStringTag), { value: name, writable: false, enumerable: false, configurable: true }, name + " tag");
  ok(Object.getPrototypeOf(P) === (parent ? globalThis[parent].prototype : Object.prototype), name + ".prototype's prototype");
  ok(Object.getPrototypeOf(C) === (parent && parent !== "Error" ? globalThis[parent] : Function.prototype), name + "'s prototype");
  throws(() => C(), TypeError, name + " without new"); ok(!(Object.create(null) instanceof C) && Object.create(P) instanceof C, name + " instanceof");
  if (ctor === "illegal") throws(() => new C(), TypeError, "new " + name); else if (ctor !== "new/0") throws(() => new C(), TypeError, "new " + name + " without arguments"); else ok(new C() instanceof C, "new " + name);
  const known = new Set(["constructor"]), statics = new Set(["length", "name", "prototype"]);
  for (const m of members) {
    const [, where, at, key, size, mark] = /^(static\.|const\.|own\.)?(@?)(\w+)(?:\/(\d))?([=!]?)$/.exec(m);
    const path = name + "." + key;
    if (where === "const.") {
      for (const o of [C, P]) { const d = own(o, key); if (d === undefined) gone(path); else { here(path); eq([typeof d.value, d.writable, d.enumerable, d.configurable], ["number", false, true, false], path); } }
      known.add(key); statics.add(key); continue;
    }
    if (where === "own.") { const d = own(new C("x"), key); eq([typeof d?.get, d?.enumerable, d?.configurable], ["function", true, false], path); continue; }
    if (at === "@") { const s = key === "values" && name === "ReadableStream" ? Symbol.asyncIterator : Symbol.iterator; const d = own(P, s); ok(d?.value === P[key] && d.writable && !d.enumerable && d.configurable, path + " as iterator"); continue; }
    (where === "static." ? statics : known).add(key);
    const d = own(where === "static." ? C : P, key);
    if (d === undefined) { gone(path); continue; }
    here(path);
    if (size !== undefined) { func(d, { name: key, length: +size }, path); if (typeof d.value === "function" && where !== "static.") await foreign(() => d.value.call({}, 1, 2, 3, 4, 5, 6, 7), mark === "!", path); continue; }
    eq([typeof d.get, typeof d.set, d.enumerable, d.configurable], ["function", mark === "=" ? "function" : "undefined", true, true], path + " descriptor");
    if (typeof d.get !== "function") continue;
    eq([d.get.name, d.get.length], ["get " + key, 0], path + " getter"); if (d.set) eq([d.set.name, d.set.length], ["set " + key, 1], path + " setter");
    await foreign(() => d.get.call({}), mark === "!", path); if (d.set) await foreign(() => d.set.call({}, "x"), false, path + " setter"); await foreign(() => P[key], mark === "!", path + " on the prototype");
  }
  for (const k of Reflect.ownKeys(P)) if (typeof k === "string" && !known.has(k) && !given.shapes.includes(" " + k)) if (!["webkitRelativePath", "cf", "timingSafeEqual"].includes(k)) fail(name + "." + k + " is in no specification");
  for (const k of Reflect.ownKeys(C)) if (typeof k === "string" && !statics.has(k)) fail(name + "." + k + " (static) is in no specification");
}
for (const g of given.globals.split(/\s+/)) {
  const [, key, size, mark] = /^(\w+)(?:\/(\d))?(=?)$/.exec(g), d = own(globalThis, key);
  if (d === undefined) { gone(key); continue; }
  here(key);
  if (size !== undefined) { func(d, { name: key, length: +size }, key); continue; }
  eq([typeof d.get, typeof d.set, d.enumerable, d.configurable], ["function", "function", true, true], key + " descriptor"); eq(d.get.name, "get " + key, key + " getter");
}
for (const path of absent) if (!seen.has(path)) fail(path + " is on the list of what is missing and in no table");
{ const d = own(globalThis, "globalThis"); eq([d.value === globalThis, d.writable, d.enumerable, d.configurable], [true, true, false, true], "globalThis"); } ok(self === globalThis, "self");
eq(["debug", "error", "info", "log", "warn", "assert", "clear", "count", "countReset", "dir", "dirxml", "group", "groupCollapsed", "groupEnd", "table", "time", "timeEnd", "timeLog", "trace"].filter((k) => typeof console[k] !== "function"), [], "console");
eq(Object.prototype.toString.call(console), "[object console]", "console tag"); ok(navigator.userAgent.length > 0, "userAgent");
if (typeof WebAssembly === "object") eq(["Module", "Instance", "Memory", "Table", "Global", "Tag", "Exception", "CompileError", "LinkError", "RuntimeError", "compile", "instantiate", "validate", "compileStreaming", "instantiateStreaming"].filter((k) => typeof WebAssembly[k] !== "function"), [], "WebAssembly");
`
