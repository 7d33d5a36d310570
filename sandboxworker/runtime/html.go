package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/html"
)

// tokenizeHTML reads as many whole tokens as data holds: meta is "1" for the last piece, and the name of
// the element whose raw text data begins in, or "-". The answer's meta is how many bytes were read and the
// element it stopped in; what was not read comes again, with more behind it. Nothing is kept in between.
//
// The tokens are JSON: [kind, end, ...], end being the offset behind it; "t" text, "s" start tag (name, "1"
// if it closes itself, name and value of each attribute), "e" end tag (name), "c" comment (text), "d"
// doctype (its text).
func tokenizeHTML(meta string, data []byte) (string, []byte, error) {
	last, raw, ok := strings.Cut(meta, " ")
	if !ok || raw != "-" && !rawText(raw) {
		return "", nil, errors.New("malformed HTML operation")
	}
	// The tokenizer learns where it is from a start tag that was not there.
	prefix := ""
	if raw != "-" {
		prefix = "<" + raw + ">"
	}
	z := html.NewTokenizer(bytes.NewReader(append([]byte(prefix), data...)))
	at := -len(prefix)
	tokens := []any{}
	state := raw
	for {
		kind := z.Next()
		n := len(z.Raw())
		end := at + n
		if kind == html.ErrorToken || n == 0 {
			if last == "1" && at < len(data) { // a tag that does not end is no tag
				tokens = append(tokens, []string{"t", strconv.Itoa(len(data))})
				at = len(data)
			}
			break
		}
		if at < 0 { // ours
			at = end
			continue
		}
		if end == len(data) && last != "1" && kind != html.TextToken && data[len(data)-1] != '>' {
			break // more of it may come
		}
		switch kind {
		case html.TextToken:
			if end == len(data) && last != "1" {
				// It may go on, and what looks like text may begin a tag: that waits. Raw text waits whole.
				if state != "-" {
					return answerTokens(tokens, at, state)
				}
				if i := bytes.LastIndexByte(data[at:end], '<'); i >= 0 {
					end = at + i
				}
				end -= cutRune(data[at:end])
				if end > at {
					tokens = append(tokens, []string{"t", strconv.Itoa(end)})
				}
				return answerTokens(tokens, end, state)
			}
			tokens = append(tokens, []string{"t", strconv.Itoa(end)})
		case html.StartTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			self := "0"
			if kind == html.SelfClosingTagToken {
				self = "1"
			}
			t := []string{"s", strconv.Itoa(end), string(name), self}
			for more {
				var key, value []byte
				key, value, more = z.TagAttr()
				t = append(t, string(key), string(value))
			}
			tokens = append(tokens, t)
			state = "-"
			if rawText(t[2]) {
				state = t[2]
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			tokens = append(tokens, []string{"e", strconv.Itoa(end), string(name)})
			state = "-"
		case html.CommentToken:
			tokens = append(tokens, []string{"c", strconv.Itoa(end), string(z.Text())})
		case html.DoctypeToken:
			tokens = append(tokens, []string{"d", strconv.Itoa(end), string(z.Text())})
		}
		at = end
	}
	return answerTokens(tokens, at, state)
}

func answerTokens(tokens []any, at int, state string) (string, []byte, error) {
	out, err := json.Marshal(tokens)
	return fmt.Sprintf("%d %s", max(at, 0), state), out, err
}

// rawText says whether the text of an element is not markup, as the tokenizer has it.
func rawText(name string) bool {
	switch name {
	case "iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp":
		return true
	}
	return false
}

// cutRune is how many bytes at the end of b begin a character of UTF-8 that is not complete.
func cutRune(b []byte) int {
	for n := 1; n <= 3 && n <= len(b); n++ {
		switch c := b[len(b)-n]; {
		case c >= 0xf0 && n < 4, c >= 0xe0 && n < 3, c >= 0xc0 && n < 2:
			return n
		case c >= 0xc0 || c < 0x80:
			return 0
		}
	}
	return 0
}
