package cache

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// unsaid is how long a response is fresh that does not say: what Workers' cache gives a 200.
	unsaid = 2 * time.Hour
	// longest is the longest that any is fresh, whatever it says.
	longest = 365 * 24 * time.Hour
)

// Reasons why a response is not kept, which are the response's own.
var (
	errControl = errors.New("its Cache-Control says no-store, no-cache or private")
	errStale   = errors.New("it is stale already, by its Cache-Control, Expires or Age")
	errCookie  = errors.New("it sets a cookie: delete Set-Cookie, or say Cache-Control: private=Set-Cookie")
)

// control is what a Cache-Control field says that matters here (RFC 9111 §5.2).
type control struct {
	never   bool // no-store, no-cache or private, of the whole response
	age     time.Duration
	hasAge  bool
	shared  bool     // age is s-maxage's
	without []string // fields that must not be kept, in lower case
}

// parseControl reads a Cache-Control field, leniently: what cannot be read as an age is none at all, and
// so stale (RFC 9111 §4.2.1).
func parseControl(v string) (c control) {
	for len(v) > 0 {
		var name, arg string
		name, arg, v = directive(v)
		switch name {
		case "no-store":
			c.never = true
		case "private", "no-cache":
			if arg == "" {
				c.never = true
				continue
			}
			for f := range strings.SplitSeq(arg, ",") {
				c.without = append(c.without, strings.ToLower(strings.TrimSpace(f)))
			}
		case "s-maxage":
			c.age, c.hasAge, c.shared = seconds(arg), true, true
		case "max-age":
			if !c.shared {
				c.age, c.hasAge = seconds(arg), true
			}
		}
	}
	return c
}

// directive cuts the first directive off a list: name in lower case, argument without its quotes.
func directive(v string) (name, arg, rest string) {
	i := strings.IndexAny(v, ",=")
	if i < 0 {
		return strings.ToLower(strings.TrimSpace(v)), "", ""
	}
	name = strings.ToLower(strings.TrimSpace(v[:i]))
	if v[i] == ',' {
		return name, "", v[i+1:]
	}
	v = strings.TrimLeft(v[i+1:], " \t")
	if !strings.HasPrefix(v, `"`) {
		arg, rest, _ = strings.Cut(v, ",")
		return name, strings.TrimSpace(arg), rest
	}
	end := 1
	for end < len(v) && v[end] != '"' {
		if v[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(v))
	arg = v[1:end]
	_, rest, _ = strings.Cut(v[min(end+1, len(v)):], ",")
	return name, arg, rest
}

// seconds reads delta-seconds; what is too large is very long.
func seconds(s string) time.Duration {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > uint64(longest/time.Second) {
		return longest
	}
	return time.Duration(n) * time.Second
}

// freshness judges a response's fields: how old it is and for how long it may be kept from now on, which
// of its fields may not, or why not at all.
func freshness(h http.Header, now time.Time) (age, fresh time.Duration, without []string, err error) {
	c := parseControl(strings.Join(h["Cache-Control"], ","))
	if c.never {
		return 0, 0, nil, errControl
	}
	if h["Set-Cookie"] != nil && !slices.Contains(c.without, "set-cookie") {
		return 0, 0, nil, errCookie
	}
	age = seconds(h.Get("Age"))
	switch expires := h["Expires"]; {
	case c.hasAge:
		fresh = c.age
	case expires != nil:
		at, err := http.ParseTime(expires[0])
		if err != nil {
			return 0, 0, nil, errStale // "0" above all
		}
		from := now
		if d, err := http.ParseTime(h.Get("Date")); err == nil {
			from = d
		}
		fresh = min(at.Sub(from), longest)
	default:
		fresh = unsaid + age
	}
	if fresh -= age; fresh <= 0 {
		return 0, 0, nil, errStale
	}
	return age, fresh, c.without, nil
}

// varying is what a Vary field names, in lower case and sorted; any says that it is "*".
func varying(values []string) (names []string, any bool) {
	for _, v := range values {
		for n := range strings.SplitSeq(v, ",") {
			switch n = strings.ToLower(strings.TrimSpace(n)); n {
			case "":
			case "*":
				return nil, true
			default:
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), false
}

// answers says whether a request has what Vary asks for: the same values, or none either.
func answers(vary, request []field) bool {
	for _, v := range vary {
		if valueOf(request, v.name) != v.value {
			return false
		}
	}
	return true
}

// valueOf joins all values of a name (RFC 9110 §5.3).
func valueOf(fields []field, name string) string {
	out, found := "", false
	for _, f := range fields {
		switch {
		case f.name != name:
		case found:
			out += ", " + f.value
		default:
			out, found = f.value, true
		}
	}
	return out
}
