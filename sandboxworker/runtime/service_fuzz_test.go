package runtime_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// hostile are messages as a process of the caller's might make them.
var hostile = []string{
	"", "0", "\n", "1\n", "0\n", "5\n[[],0]", "99999999\n[]", "999999999999\n", "-1\n[[],1]", "7\n[[],[]]", "2\n{}",
	`9` + "\n" + `[[[1,9]]]`, "14\n" + `[[[1,1]],[3,0]]`, "24\n" + `[[[1,4294967295]],[3,0]]`, "20\n" + `[[[1,0,"9",1]],[3,0]]`,
	"15\n" + `[[[8,9]],[3,0]]`, "25\n" + `[[[9,"Uint8Array",0,0,1]]]`, "28\n" + `[[[8,0],[9,"Array",0,0,0]]]`,
	"22\n" + `[[[3,"(","x"]],[3,0]]`, "12\n" + `[[],[2,"x"]]`, "20\n" + `[[[7,[3,0]]],[3,0]]`, "13\n" + `[[[99]],[3,0]]`, "11\n" + `[[],[3,-1]]`, "30\n" + `[[[0,"__proto__",[3,0]]],[3,0]]`,
	"25s0\n[[[1,1,\"0\",[3,1]],[11]],[3,0]]", // one stream, nothing in it
	"19s0\n" + `[[[1,0],[11]],[3,0]]` + "the stream's bytes", "18s0\n" + `[[[1,0],[11]],[3,0]]`, "20s3\n" + `[[[1,0],[8,3],[11]],[3,0]]` + "ab",
	"25s0\n" + `[[[1,0],[11],[11]],[3,0]]`, "14s0\n" + `[[[1,0]],[3,0]]` + "bytes of no stream", "19\n" + `[[[1,0],[11]],[3,0]]`, "s\n", "1s\n", "1s1s1\n", "0s999999999\n", "9999999999s0\n",
	"32\n" + `[[[1,1,"0",[3,1]],[12,1]],[3,0]]`, "16\n" + `[[[12,0]],[3,0]]`, "17\n" + `[[[12,65]],[3,0]]`, "18\n" + `[[[12,"1"]],[3,0]]`, "14\n" + `[[[12]],[3,0]]`, "23\n" + `[[[12,1],[12,1]],[3,0]]`,
}

// honestValues are arguments of every kind that a message can carry, each in an array, and what goes
// behind the JSON for their buffers.
var honestValues = []struct{ doc, buffers string }{
	{`[[[1,6,"0",null,"1",true,"2","text","3",1.5,"4",[0],"5",[1,"-0"]]],[3,0]]`, ""},
	{`[[[1,2,"0",[2,"-12345678901234567890"],"1",[1,"NaN"]]],[3,0]]`, ""},
	{`[[[1,1,"0",[3,1]],[0,"a",[3,1],"__proto__",1,"b",[3,0]]],[3,0]]`, ""}, // cyclic
	{`[[[1,2,"0",[3,1],"1",[3,2]],[2,5],[2,null]],[3,0]]`, ""},              // dates
	{`[[[1,1,"0",[3,1]],[3,"a+(b)?","gi"]],[3,0]]`, ""},
	{`[[[1,2,"0",[3,1],"1",[3,2]],[4,"k",[3,2],[3,1],1],[5,1,"v",[3,1]]],[3,0]]`, ""}, // Map and Set
	{`[[[1,2,"0",[3,1],"1",[3,2]],[6,"TypeError","m",[3,2]],[6,"Custom","m"]],[3,0]]`, ""},
	{`[[[1,3,"0",[3,1],"1",[3,2],"2",[3,3]],[7,1.5],[7,"s"],[7,true]],[3,0]]`, ""},
	{`[[[1,3,"0",[3,1],"1",[3,2],"2",[3,3]],[8,8],[9,"Uint16Array",1,2,2],[10,"DataView",1,1,7]],[3,0]]`, "\x00\x01\x02\x03\x04\x05\x06\x07"},
	{`[[[1,9,"8","sparse","extra",1]],[3,0]]`, ""},
}

func serviceMessage(doc, buffers string) string {
	return strconv.Itoa(len(doc)) + "\n" + doc + buffers
}

// script hands out the bytes of a fuzzer's input; zero when there are no more.
type serviceScript struct{ b []byte }

func (s *serviceScript) next() int {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return int(c)
}

// pick takes one of the first good, and one of the others now and then: a message of many parts would
// hardly ever be read to its end otherwise.
func (s *serviceScript) pick(good int, from ...string) string {
	k := s.next()
	if k%16 != 15 {
		return from[k/16%good]
	}
	return from[s.next()%len(from)]
}

// value writes one value of a message of n nodes, rarely a wrong one.
func (s *serviceScript) value(n int) string {
	switch k := s.next(); k % 16 {
	case 0:
		return "[0]"
	case 1:
		return `[1,` + s.pick(6, `"NaN"`, `"-0"`, `"1e999"`, `"0x10"`, `"x"`, `""`, `7`, `[1]`) + "]"
	case 2:
		return `[2,` + s.pick(6, `"0"`, `"-1"`, `"0xff"`, `""`, `" 12 "`, `"`+strings.Repeat("9", 40)+`"`, `"1e3"`, `null`) + "]"
	case 3:
		return s.pick(10, "null", "true", "false", "0", "-1", "1e308", "0.1", "4294967296", "1e400", "-0")
	case 4:
		return s.pick(7, `""`, `"text"`, `"__proto__"`, `"\ud800"`, `"\u0000"`, `"then"`, `"caf\u00e9"`)
	case 5:
		if s.next()%8 != 0 {
			return "[0]"
		}
		return s.pick(8, "{}", "[]", "[9]", `["0"]`, "[[]]", `{"0":3}`, "[3]", "[null,1]")
	default:
		to := s.next() % n
		if s.next()%64 == 63 {
			to = n // there is none
		}
		return fmt.Sprintf("[3,%d]", to)
	}
}

func (s *serviceScript) key() string {
	return s.pick(12, `"0"`, `"1"`, `"2"`, `"a"`, `"length"`, `"__proto__"`, `"constructor"`, `"then"`, `"toJSON"`, `"4294967295"`, `"-1"`, `""`, `7`)
}

// compose makes a message out of a script: nodes that are nearly always well-formed, so that what is
// behind the first checks is reached as well.
func compose(raw []byte) []byte {
	s := &serviceScript{raw}
	n := 1 + s.next()%24
	var buffers []byte
	nodes := make([]string, 0, n)
	buffer := -1 // the last
	for i := range n {
		kind := s.next() % 11
		if s.next()%64 == 63 {
			kind = 13 // there is none
		} else if s.next()%32 == 31 {
			kind = 12
		}
		if buffer < 0 && (kind == 9 || kind == 10) {
			kind = 8
		}
		if i == 0 {
			kind = 1 // the arguments
		}
		node := []string{strconv.Itoa(kind)}
		few := s.next() % 5
		switch kind {
		case 0:
			for range few {
				node = append(node, s.key(), s.value(n))
			}
		case 1:
			length := strconv.Itoa(few)
			if i > 0 {
				length = s.pick(1, length, "1024", "1030", "-1", "1.5", `"2"`, "4294967295")
			}
			node = append(node, length)
			for k := range few {
				key := strconv.Quote(strconv.Itoa(k))
				if i > 0 && s.next()%8 == 0 {
					key = s.key()
				}
				node = append(node, key, s.value(n))
			}
		case 2:
			node = append(node, s.pick(5, "0", "1.5", "null", "8640000000000001", "-1", `"x"`, "[]", "{}"))
		case 3:
			node = append(node, s.pick(6, `"a+"`, `""`, `"/"`, `"[\ud800]"`, `"(?<n>a)\\k<n>"`, `"\\p{L}"`, `"("`, "1"), s.pick(4, `""`, `"g"`, `"gimsuy"`, `"v"`, `"uv"`, `"gg"`, `"x"`))
		case 4:
			for range few {
				node = append(node, s.value(n), s.value(n))
			}
		case 5:
			for range few {
				node = append(node, s.value(n))
			}
		case 6:
			node = append(node, s.pick(5, `"Error"`, `"TypeError"`, `"DataCloneError"`, `"__proto__"`, `""`, "1"), s.pick(2, `"m"`, `""`, "null"))
			if few > 2 {
				node = append(node, s.value(n))
			}
		case 7:
			node = append(node, s.value(n))
		case 12:
			node = append(node, s.pick(3, "1", "2", "64", "65", "0", "-1", `"1"`, "[3,0]"))
		case 8:
			size := 8 + s.next()%8*8
			buffer = i
			node = append(node, s.pick(1, strconv.Itoa(size), "65", "4294967295", "-1", `"8"`))
			buffers = append(buffers, make([]byte, size)...)
		case 9, 10:
			node = append(node, s.pick(5, `"Uint8Array"`, `"Int16Array"`, `"Float64Array"`, `"BigInt64Array"`, `"Uint8ClampedArray"`, `"Array"`, `"DataView"`),
				s.pick(1, strconv.Itoa(buffer), strconv.Itoa(s.next()%(n+1))), s.pick(1, "0", "1", "2", "8", "63", "64", "-1", "1.5", "4294967296"), s.pick(3, "0", "1", "2", "3", "64", "-1", "0.5", "9007199254740991"))
		}
		nodes = append(nodes, "["+strings.Join(node, ",")+"]")
	}
	doc := "[[" + strings.Join(nodes, ",") + "],[3,0]]"
	return append([]byte(serviceMessage(doc, "")), buffers...)
}

// keptWorker is a callee that answers one message after another. Its errors are returned, not
// reported: what fails is tried again in a new one.
type keptWorker struct {
	*worker
	errs   recorder
	calls  uint32
	size   int // of all messages
	inputs int
}

// aliveEvery is after how many inputs the isolate is asked for something else: an answer to the next
// message shows nearly as much. The first of an isolate is followed by it too, which is the one that
// a failing input is tried as alone.
const aliveEvery = 16

// recorder takes the place of a test in a worker.
type recorder struct {
	testing.TB
	err error
}

type stopped struct{}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}
func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }
func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(stopped{})
}

func keep() (*keptWorker, error) {
	iso, err := shared.New()
	if err != nil {
		return nil, err
	}
	k := &keptWorker{worker: &worker{iso: iso, now: epoch, timer: -1, answers: map[uint32]*answer{}}}
	k.t = &k.errs
	const callee = entrypoints + `export default class extends WorkerEntrypoint { echo(...v) { return v; } alive() { return 1; } }`
	out, turn := iso.Load(engine.Bundle{Main: "/worker.js", Modules: []engine.Module{{Name: "/worker.js", Code: []byte(callee)}}}, nil, testLimits, k.now)
	if out.Failure != nil || turn.Status != engine.OK {
		iso.Dispose()
		return nil, fmt.Errorf("load: %+v", out.Failure)
	}
	return k, nil
}

func (k *keptWorker) close() {
	k.host.Close()
	k.iso.Dispose()
}

// call calls a method and returns the answer: there is one, whatever the message.
func (k *keptWorker) call(method string, message []byte) *answer {
	k.calls++
	clear(k.answers)
	k.logs = k.logs[:0]
	k.size += len(message)
	r := engine.Request{Method: runtime.EventMethod("POST", "call", "", method), BodyMode: gen.BodyMode_whole, Body: message}
	a := k.send(k.calls, r)
	k.settle()
	if a.finished != 1 || !a.head || (a.status == 200) != (a.outcome == gen.Outcome_ok) {
		k.t.Fatalf("%s finished %d times, status %d, outcome %v: %s", method, a.finished, a.status, a.outcome, a.message)
	}
	return a
}

// messageOf is what an input stands for: the bytes as they are where they begin with a length, as every
// message does; else what they say composed. What comes of other beginnings, TestComposedMessages shows.
func messageOf(raw []byte) []byte {
	if len(raw) == 0 || raw[0] >= '0' && raw[0] <= '9' {
		return raw
	}
	return compose(raw)
}

// try sends what an input stands for.
func (k *keptWorker) try(raw []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(stopped); !ok {
				panic(p)
			}
		}
		err = k.errs.err
	}()
	a := k.call("echo", messageOf(raw))
	observe(a)
	if a.status == 200 { // what this side writes it reads, and writes the same of it
		again := k.call("echo", []byte(a.body.String()))
		if again.status != 200 || again.body.String() != a.body.String() {
			k.t.Errorf("%.300q came back as %d %.300q", a.body.String(), again.status, again.body.String())
		}
	}
	if k.inputs++; k.inputs%aliveEvery != 1 {
		return nil
	}
	if a := k.call("alive", []byte(serviceMessage(`[[[1,0]],[3,0]]`, ""))); a.status != 200 || a.body.String() != serviceMessage("[[],1]", "") {
		k.t.Errorf("the isolate answers %d %.300q", a.status, a.body.String())
	}
	return nil
}

// observe tells the fuzzer how far a message came: what reads it is JavaScript, which it does not see.
// Each case is a branch of its own, taken so many times.
func observe(a *answer) {
	if a.status != 200 {
		for _, word := range []string{"malformed", "SyntaxError", "RangeError", "TypeError", "DataCloneError", "JSON", "BigInt", "regular expression", "offset", "length", "buffer", "flags", "property"} {
			if strings.Contains(a.message, word) {
				observed(len(word) + 20)
			}
		}
		return
	}
	// The kinds of the nodes: the first element of each list that stands in a list in a list.
	_, doc, _ := strings.Cut(a.body.String(), "\n")
	depth, quoted := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[':
			if depth++; depth == 3 && i+1 < len(doc) {
				kind := int(doc[i+1] - '0')
				if i+2 < len(doc) && doc[i+2] == '0' {
					kind = 10
				}
				observed(kind)
			}
		case c == ']':
			if depth--; depth == 0 {
				return // the buffers follow
			}
		}
	}
}

//go:noinline
func observed(what int) {
	switch what {
	case 0:
		seen[0]++
	case 1:
		seen[1]++
	case 2:
		seen[2]++
	case 3:
		seen[3]++
	case 4:
		seen[4]++
	case 5:
		seen[5]++
	case 6:
		seen[6]++
	case 7:
		seen[7]++
	case 8:
		seen[8]++
	case 9:
		seen[9]++
	case 10:
		seen[10]++
	case 24:
		seen[24]++
	case 25:
		seen[25]++
	case 26:
		seen[26]++
	case 28:
		seen[28]++
	case 29:
		seen[29]++
	case 30:
		seen[30]++
	case 31:
		seen[31]++
	case 34:
		seen[34]++
	case 38:
		seen[38]++
	}
}

var seen [64]int

// What FuzzServiceMessage begins from is understood, and composed messages mostly are.
func TestComposedMessages(t *testing.T) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	k, err := keep()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	for _, v := range honestValues {
		if a := k.call("echo", []byte(serviceMessage(v.doc, v.buffers))); a.status != 200 {
			t.Errorf("%s: %s", v.doc, a.message)
		}
	}
	for _, m := range append(hostile, "\n[]", "-1\n[]", " 2\n[]", "x", "\x00\x00\x00\x01", "[[],1]", "{}") {
		if a := k.call("echo", []byte(m)); a.status == 200 {
			t.Errorf("%q was understood: %q", m, a.body.String())
		}
	}
	understood := 0
	for i := range 500 {
		raw := make([]byte, 120)
		for j := range raw {
			raw[j] = byte((i*131 + j*j*7 + j*i) >> 1)
		}
		raw[0] |= 0x80
		if err := k.try(raw); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if k.call("echo", compose(raw)).status == 200 {
			understood++
		}
	}
	if understood < 50 {
		t.Errorf("%d of 500 composed messages were understood", understood)
	}
}

// historyEnv names a history of FuzzServiceMessage, to be played before its inputs: a crash that one
// input alone does not bring about needs those before it too.
const historyEnv = "BULKHEAD_FUZZ_HISTORY"

// Whatever the bytes are: the invocation ends once, with an answer, and the isolate lives. An isolate
// serves renewAfter inputs; one that fails is played to a new one alone. Each process of the fuzzer
// writes down the inputs of its isolate, which a V8 that aborts leaves behind in $TMPDIR/FuzzServiceMessage*.
func FuzzServiceMessage(f *testing.F) {
	for _, m := range hostile {
		f.Add([]byte(m))
	}
	for _, v := range honestValues {
		f.Add([]byte(serviceMessage(v.doc, v.buffers)))
	}
	const renewAfter = 400
	history, err := os.Create(filepath.Join(f.TempDir(), "history"))
	if err != nil {
		f.Fatal(err)
	}
	defer history.Close()
	var k *keptWorker
	tried := 0
	var line []byte
	renew := func(t *testing.T) {
		if k != nil {
			k.close()
			k = nil
		}
		if k, err = keep(); err != nil {
			t.Fatal(err)
		}
		tried = 0
		if err := history.Truncate(0); err != nil {
			t.Fatal(err)
		}
		history.Seek(0, 0)
	}
	defer func() {
		if k != nil {
			k.close()
		}
	}()
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) > 60<<10 {
			return
		}
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		if k == nil || tried >= renewAfter || k.size > 8<<20 {
			renew(t)
			if name := os.Getenv(historyEnv); name != "" {
				replay(t, k, name)
			}
		}
		tried++
		line = append(strconv.AppendQuote(line[:0], string(message)), '\n')
		if _, err := history.Write(line); err != nil {
			t.Fatal(err)
		}
		err := k.try(message)
		if err == nil {
			return
		}
		before, _ := os.ReadFile(history.Name())
		renew(t)
		if alone := k.try(message); alone != nil {
			renew(t)
			t.Fatal(alone)
		}
		name := filepath.Join(os.TempDir(), fmt.Sprintf("bulkhead-service-history-%d", os.Getpid()))
		if werr := os.WriteFile(name, before, 0o600); werr != nil {
			t.Error(werr)
		}
		t.Fatalf("%v\nnot by this input alone: run it with %s=%s", err, historyEnv, name)
	})
}

func replay(t *testing.T, k *keptWorker, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		message, err := strconv.Unquote(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		if err := k.try([]byte(message)); err != nil {
			t.Fatalf("%q: %v", message, err)
		}
	}
}
