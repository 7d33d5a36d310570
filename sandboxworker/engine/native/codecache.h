// The code cache of a tenant's bundle.

#ifndef BULKHEAD_CODECACHE_H_
#define BULKHEAD_CODECACHE_H_

#include <cstdint>
#include <string_view>

namespace bulkhead {

// Tells one text from another; no defence against who chooses both.
uint64_t Fingerprint(std::string_view s);

}  // namespace bulkhead

#endif  // BULKHEAD_CODECACHE_H_
