// WHATWG URL parsing over Ada's C API, which the Go module goada links in.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>

#include "host.h"

// The header is C and does not say so to C++.
extern "C" {
#include "ada_c.h"
}

namespace bulkhead {
namespace {

// Longer input is no URL anyone serves; Ada's offsets are 32 bits wide.
constexpr size_t kMaxInput = 4u << 20;

// Ada turns the labels of a host to Punycode in time that grows with the square of their length, and
// nothing can stop it meanwhile. DNS ends at 253 bytes (RFC 1035, section 2.3.4).
constexpr size_t kMaxHost = 2048;

bool HostTooLong(std::string_view host) {
  return host.substr(0, std::min(host.find_first_of("/\\?#"), host.size())).size() > kMaxHost;
}

// Whether what may be the host of an absolute or a relative URL is longer than any host. It errs on
// the side of a host: a scheme without slashes may be followed by one.
bool InputHostTooLong(std::string_view url) {
  auto blank = [](char c) { return static_cast<unsigned char>(c) <= 0x20; };
  size_t at = 0;
  while (at < url.size() && blank(url[at])) at++;
  size_t colon = url.find_first_of(":/\\?#", at);
  bool scheme = colon != std::string_view::npos && url[colon] == ':';
  if (scheme) at = colon + 1;
  size_t slashes = 0;
  for (; at < url.size() && (url[at] == '/' || url[at] == '\\' || blank(url[at])); at++) {
    if (!blank(url[at])) slashes++;
  }
  constexpr std::string_view kSpecial[] = {"http", "https", "ws", "wss", "ftp", "file"};
  if (slashes < 2) {
    if (!scheme) return false;
    // "data:..." and its like have no host without slashes.
    std::string name;
    for (char c : url.substr(0, colon)) {
      if (!blank(c)) name += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    if (std::find(std::begin(kSpecial), std::end(kSpecial), name) == std::end(kSpecial)) return false;
  }
  std::string_view rest = url.substr(at);
  std::string_view authority = rest.substr(0, std::min(rest.find_first_of("/\\?#"), rest.size()));
  size_t user = authority.rfind('@');
  return HostTooLong(user == std::string_view::npos ? authority : authority.substr(user + 1));
}

struct AdaFree {
  void operator()(void* p) const { ada_free(p); }
};
using Url = std::unique_ptr<void, AdaFree>;

bool InputArg(const Args& args, int n, std::string* out, bool* too_long) {
  v8::Local<v8::String> s;
  if (!StringArg(args, n, &s)) return false;
  *too_long = static_cast<size_t>(s->Length()) > kMaxInput;
  if (!*too_long) *out = ToUtf8(args.GetIsolate(), s);
  return true;
}

// The nine numbers of the binding. No JavaScript runs between the check of the length and the copy.
bool WriteComponents(const Args& args, int n, ada_url url) {
  v8::Isolate* iso = args.GetIsolate();
  if (!args[n]->IsUint32Array() || args[n].As<v8::Uint32Array>()->Length() < 9) {
    ThrowTypeError(iso, "host: a Uint32Array of 9 elements was expected");
    return false;
  }
  const ada_url_components* c = ada_get_components(url);
  const uint32_t values[] = {c->protocol_end,   c->username_end, c->host_start,
                             c->host_end,       c->port,         c->pathname_start,
                             c->search_start,   c->hash_start,   ada_get_scheme_type(url)};
  v8::Local<v8::Uint32Array> out = args[n].As<v8::Uint32Array>();
  v8::Local<v8::ArrayBuffer> buffer = out->Buffer();
  if (out->ByteOffset() + sizeof values > buffer->ByteLength()) {
    ThrowTypeError(iso, "host: a Uint32Array of 9 elements was expected");
    return false;
  }
  std::memcpy(static_cast<uint8_t*>(buffer->Data()) + out->ByteOffset(), values, sizeof values);
  return true;
}

void ReturnHref(const Args& args, ada_url url) {
  ada_string href = ada_get_href(url);
  v8::Local<v8::String> out;
  if (v8::String::NewFromUtf8(args.GetIsolate(), href.data, v8::NewStringType::kNormal,
                              static_cast<int>(href.length))
          .ToLocal(&out)) {
    args.GetReturnValue().Set(out);
  }
}

// urlParse(input, base|undefined, out) -> href | undefined
void UrlParse(const Args& args) {
  std::string input, base;
  bool input_long = false, base_long = false;
  bool has_base = !args[1]->IsUndefined();
  if (!InputArg(args, 0, &input, &input_long)) return;
  if (has_base && !InputArg(args, 1, &base, &base_long)) return;
  if (input_long || base_long || InputHostTooLong(input) || InputHostTooLong(base)) return;
  Url url(has_base ? ada_parse_with_base(input.data(), input.size(), base.data(), base.size())
                   : ada_parse(input.data(), input.size()));
  if (!ada_is_valid(url.get()) || !WriteComponents(args, 2, url.get())) return;
  ReturnHref(args, url.get());
}

void UrlCanParse(const Args& args) {
  std::string input, base;
  bool input_long = false, base_long = false;
  bool has_base = !args[1]->IsUndefined();
  if (!InputArg(args, 0, &input, &input_long)) return;
  if (has_base && !InputArg(args, 1, &base, &base_long)) return;
  bool can = !input_long && !base_long && !InputHostTooLong(input) && !InputHostTooLong(base) &&
             (has_base ? ada_can_parse_with_base(input.data(), input.size(), base.data(),
                                                 base.size())
                       : ada_can_parse(input.data(), input.size()));
  args.GetReturnValue().Set(can);
}

// urlSet(href, which, value, out) -> href | undefined when the setter refused or href was no URL
void UrlSet(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  std::string href, value;
  bool href_long = false, value_long = false;
  uint32_t which;
  if (!InputArg(args, 0, &href, &href_long) || !UintArg(args, 1, &which) ||
      !InputArg(args, 2, &value, &value_long)) {
    return;
  }
  if (href_long || value_long || InputHostTooLong(href)) return;
  if (which == 0 && InputHostTooLong(value)) return;
  if ((which == 4 || which == 5) && HostTooLong(value)) return;
  Url url(ada_parse(href.data(), href.size()));
  if (!ada_is_valid(url.get())) return;
  bool done = true;
  switch (which) {
    case 0: done = ada_set_href(url.get(), value.data(), value.size()); break;
    case 1: done = ada_set_protocol(url.get(), value.data(), value.size()); break;
    case 2: done = ada_set_username(url.get(), value.data(), value.size()); break;
    case 3: done = ada_set_password(url.get(), value.data(), value.size()); break;
    case 4: done = ada_set_host(url.get(), value.data(), value.size()); break;
    case 5: done = ada_set_hostname(url.get(), value.data(), value.size()); break;
    case 6: done = ada_set_port(url.get(), value.data(), value.size()); break;
    case 7: done = ada_set_pathname(url.get(), value.data(), value.size()); break;
    case 8: ada_set_search(url.get(), value.data(), value.size()); break;
    case 9: ada_set_hash(url.get(), value.data(), value.size()); break;
    default: return ThrowRangeError(iso, "host: no such URL part");
  }
  if (!done || !WriteComponents(args, 3, url.get())) return;
  ReturnHref(args, url.get());
}

}  // namespace

void InstallUrlFunctions(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> host) {
  SetFunction(iso, c, host, "urlParse", UrlParse);
  SetFunction(iso, c, host, "urlCanParse", UrlCanParse);
  SetFunction(iso, c, host, "urlSet", UrlSet);
}

}  // namespace bulkhead
