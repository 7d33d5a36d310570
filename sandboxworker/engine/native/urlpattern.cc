// URLPattern's parser and canonicalizer (https://urlpattern.spec.whatwg.org/) over Ada. No pattern is kept
// here: the runtime gets its components as text and matches by itself, with V8's regular expressions.

#include <array>
#include <optional>

#include "ada.h"
#include "host.h"

namespace bulkhead {
namespace {

// Ada's parser keeps some forty bytes a character while it works, on nobody's account.
constexpr size_t kMaxPattern = 64u << 10;

// What a regular expression is to Ada: its source. Ada asks only whether it is one, and whether the
// pattern of a protocol matches the special schemes; the runtime's function answers both.
struct Runtime {
  v8::Isolate* iso;
  v8::Local<v8::Function> test;  // (source, input or undefined for "is it one?") -> boolean
  bool failed = false;           // an exception is pending
};
thread_local Runtime* current = nullptr;

bool Ask(const std::string& source, std::optional<std::string_view> input) {
  if (current->failed) return false;
  v8::Isolate* iso = current->iso;
  v8::HandleScope scope(iso);
  v8::Local<v8::Value> argv[] = {Utf8(iso, source), v8::Undefined(iso)}, out;
  if (input) argv[1] = Utf8(iso, *input);
  if (!current->test->Call(iso->GetCurrentContext(), v8::Undefined(iso), 2, argv).ToLocal(&out)) {
    current->failed = true;
    return false;
  }
  return out->IsTrue();
}

struct SourceRegex {
  using regex_type = std::string;
  static std::optional<regex_type> create_instance(std::string_view pattern, bool) {
    std::string source(pattern);
    if (!Ask(source, std::nullopt)) return std::nullopt;
    return source;
  }
  static std::optional<std::vector<std::optional<std::string>>> regex_search(std::string_view,
                                                                             const regex_type&) {
    return std::nullopt;  // matching is the runtime's
  }
  static bool regex_match(std::string_view input, const regex_type& source) {
    return Ask(source, input);
  }
};

using Init = ada::url_pattern_init;

// A string, undefined (false in *given), or too long (false in *fits).
bool PartArg(v8::Isolate* iso, v8::Local<v8::Value> v, std::optional<std::string>* out, bool* fits) {
  if (v->IsUndefined()) return true;
  if (!v->IsString()) {
    ThrowTypeError(iso, "host: a string was expected");
    return false;
  }
  v8::Local<v8::String> s = v.As<v8::String>();
  if (static_cast<size_t>(s->Length()) > kMaxPattern) {
    *fits = false;
    return true;
  }
  *out = ToUtf8(iso, s);
  return true;
}

// An array of nine: protocol, username, password, hostname, port, pathname, search, hash, baseURL.
bool InitArg(v8::Isolate* iso, v8::Local<v8::Value> v, Init* out, bool* fits) {
  if (!v->IsArray() || v.As<v8::Array>()->Length() != 9) {
    ThrowTypeError(iso, "host: an array of 9 was expected");
    return false;
  }
  std::optional<std::string>* parts[] = {&out->protocol, &out->username, &out->password,
                                         &out->hostname, &out->port, &out->pathname,
                                         &out->search, &out->hash, &out->base_url};
  for (uint32_t n = 0; n < 9; n++) {
    v8::Local<v8::Value> item;
    if (!v.As<v8::Array>()->Get(iso->GetCurrentContext(), n).ToLocal(&item) ||
        !PartArg(iso, item, parts[n], fits)) {
      return false;
    }
  }
  return true;
}

// [pattern, kind, text, name ...]: kind 0 matches the empty string, 1 `text`, 2 everything, 3 the regular
// expression `text`. +4 when the pattern holds an expression of its author's.
v8::Local<v8::Array> Component(v8::Isolate* iso, const ada::url_pattern_component<SourceRegex>& c) {
  int kind = 3;
  switch (c.type) {
    case ada::url_pattern_component_type::EMPTY: kind = 0; break;
    case ada::url_pattern_component_type::EXACT_MATCH: kind = 1; break;
    case ada::url_pattern_component_type::FULL_WILDCARD: kind = 2; break;
    case ada::url_pattern_component_type::REGEXP: break;
  }
  std::vector<v8::Local<v8::Value>> out = {
      Utf8(iso, c.pattern), v8::Integer::New(iso, kind + (c.has_regexp_groups ? 4 : 0)),
      Utf8(iso, kind == 1 ? c.exact_match_value : c.regexp)};
  for (const std::string& name : c.group_name_list) out.push_back(Utf8(iso, name));
  return v8::Array::New(iso, out.data(), out.size());
}

// urlPatternParse(string or array of nine, base|undefined, ignoreCase, test) -> eight components, or
// undefined when it is no pattern.
void UrlPatternParse(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  std::optional<std::string> text, base;
  Init init;
  bool fits = true;
  if (args[0]->IsString() ? !PartArg(iso, args[0], &text, &fits)
                          : !InitArg(iso, args[0], &init, &fits)) {
    return;
  }
  if (!PartArg(iso, args[1], &base, &fits)) return;
  if (!args[3]->IsFunction()) return ThrowTypeError(iso, "host: a function was expected");
  if (!fits) return;
  ada::url_pattern_options options;
  options.ignore_case = args[2]->IsTrue();
  std::variant<std::string_view, Init> input;
  if (text) {
    input = std::string_view(*text);
  } else {
    input = std::move(init);
  }
  std::string_view base_view;
  if (base) base_view = *base;

  Runtime runtime{iso, args[3].As<v8::Function>()};
  Runtime* outer = std::exchange(current, &runtime);
  auto parsed = ada::parser::parse_url_pattern_impl<SourceRegex>(
      std::move(input), base ? &base_view : nullptr, &options);
  current = outer;
  if (runtime.failed || !parsed) return;  // what the function threw is pending
  v8::Local<v8::Value> out[] = {
      Component(iso, parsed->protocol_component), Component(iso, parsed->username_component),
      Component(iso, parsed->password_component), Component(iso, parsed->hostname_component),
      Component(iso, parsed->port_component),     Component(iso, parsed->pathname_component),
      Component(iso, parsed->search_component),   Component(iso, parsed->hash_component)};
  args.GetReturnValue().Set(v8::Array::New(iso, out, 8));
}

// urlPatternInput(array of nine) -> its eight canonical parts as a URL has them, or undefined.
void UrlPatternInput(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  Init init;
  bool fits = true;
  if (!InitArg(iso, args[0], &init, &fits) || !fits) return;
  auto done = Init::process(init, Init::process_type::url, "", "", "", "", "", "", "", "");
  if (!done) return;
  const std::optional<std::string>* parts[] = {&done->protocol, &done->username, &done->password,
                                               &done->hostname, &done->port, &done->pathname,
                                               &done->search, &done->hash};
  v8::Local<v8::Value> out[8];
  for (size_t n = 0; n < 8; n++) out[n] = Utf8(iso, parts[n]->value_or(std::string()));
  args.GetReturnValue().Set(v8::Array::New(iso, out, 8));
}

}  // namespace

void InstallUrlPatternFunctions(v8::Isolate* iso, v8::Local<v8::Context> c,
                                v8::Local<v8::Object> host) {
  SetFunction(iso, c, host, "urlPatternParse", UrlPatternParse);
  SetFunction(iso, c, host, "urlPatternInput", UrlPatternInput);
}

}  // namespace bulkhead
