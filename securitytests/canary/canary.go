// Package canary plants a tenant's secrets in every kind of place a tenant has, and finds them in the
// memory of processes.
//
// Duty: say of a process whether any secret of a tenant is in it, and of which kind. It holds no
// opinion where that may be.
//
// Trust: what it reads is the memory of hostile processes: bytes to be compared, never followed.
//
// Invariants: secrets are random, of three parts of 16 bytes each of which is looked for alone, so that
// one that was half overwritten is found; as UTF-8 and as UTF-16LE. Numbers are found as the doubles
// whose bytes make up the secret.
package canary

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// partLen is the length of what is looked for, bytes of UTF-8.
const partLen = 16

const (
	markLen = 4
	parts   = 3
)

// Place is a kind of place where a tenant's secret is.
type Place string

// Places that the tenant's code is handed a secret through, or hands one out by.
const (
	Code            Place = "source code"
	Comment         Place = "source code that nothing runs"
	TextModule      Place = "text module"
	DataModule      Place = "data module"
	EnvText         Place = "env, text"
	EnvJSON         Place = "env, JSON"
	URL             Place = "request URL"
	RequestHeader   Place = "request header"
	RequestBody     Place = "request body"
	LongBody        Place = "request body, streamed"
	ResponseHeader  Place = "response header"
	ResponseBody    Place = "response body"
	LongResponse    Place = "response body, streamed"
	Log             Place = "log"
	Exception       Place = "uncaught exception"
	SubURL          Place = "subrequest URL"
	SubHeader       Place = "subrequest header"
	SubBody         Place = "subrequest body"
	SubAnswer       Place = "subrequest's answer"
	SubAnswerHeader Place = "header of a subrequest's answer"
)

// heapPlaces are made by the tenant's code, from a secret that reaches it in another form.
var heapPlaces = []Place{
	"one-byte string", "two-byte string", "cons string", "sliced string", "property name", "symbol", "regular expression",
	"array of doubles", "typed array", "small typed array", "ArrayBuffer", "large ArrayBuffer", "resizable ArrayBuffer",
	"map key", "pending promise", "timer argument", "closure", "error stack", "structured clone", "JSON", "decoded text",
	"encoded text", "base64", "digest and HMAC key", "URL object", "form data", "blob", "stream queue", "normalised text",
	"collated text", "formatted number", "garbage", "WebAssembly memory",
}

var handed = []Place{
	Code, Comment, TextModule, DataModule, EnvText, EnvJSON, URL, RequestHeader, RequestBody, LongBody, ResponseHeader, ResponseBody,
	LongResponse, Log, Exception, SubURL, SubHeader, SubBody, SubAnswer, SubAnswerHeader,
}

// Places lists them all.
func Places() []Place { return slices.Concat(handed, heapPlaces) }

// Secrets are one tenant's, a different one for each place.
type Secrets struct {
	mark  string
	text  map[Place]string
	whose map[string]Place // by part
}

// NewSecrets draws a tenant's secrets.
func NewSecrets() *Secrets {
	s := &Secrets{mark: random(markLen), text: map[Place]string{}, whose: map[string]Place{}}
	for _, p := range Places() {
		var b strings.Builder
		for range parts {
			part := s.mark + random(partLen-markLen)
			s.whose[part] = p
			b.WriteString(part)
		}
		s.text[p] = b.String()
	}
	return s
}

// random is text that stands the same in a URL, a header, a string literal and case-folded.
func random(n int) string {
	const letters = "abcdefghjkmnpqrstuvwxyz123456789"
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b)
}

// Of returns the secret of a place.
func (s *Secrets) Of(p Place) string { return s.text[p] }

// In returns the places whose secrets are in text, in part at least.
func (s *Secrets) In(text string) []Place {
	found := map[Place]bool{}
	s.find([]byte(text), func(_ int, p Place, _ bool) { found[p] = true })
	return slices.Sorted(maps.Keys(found))
}

// seeds tells the tenant's code the secrets of its heap in a form in which they are not found.
func (s *Secrets) seeds() []byte {
	m := map[string]string{}
	for _, p := range heapPlaces {
		m[string(p)] = hex.EncodeToString([]byte(s.text[p]))
	}
	out, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("BUG: encode strings: %v", err))
	}
	return out
}
