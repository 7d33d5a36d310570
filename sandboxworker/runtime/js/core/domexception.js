// DOMException (https://webidl.spec.whatwg.org/#idl-DOMException).

const domExceptionUnit = new Unit(() => {
  const codes = {
    __proto__: null,
    IndexSizeError: 1, HierarchyRequestError: 3, WrongDocumentError: 4, InvalidCharacterError: 5,
    NoModificationAllowedError: 7, NotFoundError: 8, NotSupportedError: 9, InUseAttributeError: 10,
    InvalidStateError: 11, SyntaxError: 12, InvalidModificationError: 13, NamespaceError: 14,
    InvalidAccessError: 15, TypeMismatchError: 17, SecurityError: 18, NetworkError: 19, AbortError: 20,
    URLMismatchError: 21, QuotaExceededError: 22, TimeoutError: 23, InvalidNodeTypeError: 24,
    DataCloneError: 25,
  };
  class DOMException {
    #message; #name;
    constructor(message = "", name = "Error") {
      this.#message = toDOMString(message);
      this.#name = toDOMString(name);
      ErrorCaptureStackTrace(this, DOMException);
    }
    get name() { return this.#name; }
    get message() { return this.#message; }
    get code() { return codes[this.#name] ?? 0; }
    static is(v) { return isObject(v) && #name in v; }
  }
  const is = DOMException.is;
  delete DOMException.is;
  ObjectSetPrototypeOf(DOMException.prototype, Error.prototype);
  defineInterface(DOMException, "DOMException", {
    INDEX_SIZE_ERR: 1, DOMSTRING_SIZE_ERR: 2, HIERARCHY_REQUEST_ERR: 3, WRONG_DOCUMENT_ERR: 4,
    INVALID_CHARACTER_ERR: 5, NO_DATA_ALLOWED_ERR: 6, NO_MODIFICATION_ALLOWED_ERR: 7, NOT_FOUND_ERR: 8,
    NOT_SUPPORTED_ERR: 9, INUSE_ATTRIBUTE_ERR: 10, INVALID_STATE_ERR: 11, SYNTAX_ERR: 12,
    INVALID_MODIFICATION_ERR: 13, NAMESPACE_ERR: 14, INVALID_ACCESS_ERR: 15, VALIDATION_ERR: 16,
    TYPE_MISMATCH_ERR: 17, SECURITY_ERR: 18, NETWORK_ERR: 19, ABORT_ERR: 20, URL_MISMATCH_ERR: 21,
    QUOTA_EXCEEDED_ERR: 22, TIMEOUT_ERR: 23, INVALID_NODE_TYPE_ERR: 24, DATA_CLONE_ERR: 25,
  });
  // clone keeps the stack, as the standard asks of those who have one.
  const clone = (e) => {
    const c = new DOMException(ReflectApply(messageOf, e, []), ReflectApply(nameOf, e, []));
    const stack = tryGet(e, "stack");
    if (typeof stack === "string") ObjectDefineProperty(c, "stack", { __proto__: null, value: stack });
    return c;
  };
  const messageOf = ObjectGetOwnPropertyDescriptor(DOMException.prototype, "message").get;
  const nameOf = ObjectGetOwnPropertyDescriptor(DOMException.prototype, "name").get;
  return { __proto__: null, DOMException, is, clone };
});

const newDOMException = (message, name) => new (domExceptionUnit.get().DOMException)(message, name);
