package observe

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Event is one line of the event log. The JSON names are a contract; Data's fields stand beside them.
type Event struct {
	Seq  uint64    `json:"seq"` // from 1, without gaps over restarts
	Time time.Time `json:"time"`
	Kind string    `json:"kind"` // incident, policy, observed, ...
	Prev string    `json:"prev"` // hash of the line before, "" for the very first
}

// Events is a log of what was decided and why: JSON lines, each with the hash of the one before, so that
// a line that was changed or taken out is seen. It is rotated. Safe for concurrent use.
//
// Hashes show gaps to whoever has seen a later line; somebody who can rewrite the whole file can make
// it consistent. Copy it away to be safe from that.
type Events struct {
	dir     string
	max     int64
	keep    int
	failure func(error)

	mu   sync.Mutex
	f    *os.File // guarded by mu; nil after a failure
	size int64    // guarded by mu
	seq  uint64   // guarded by mu
	prev string   // guarded by mu
}

// EventsFile is the name of the log in its directory; older parts have .1, .2 and so on behind it.
const EventsFile = "events.jsonl"

// Bounds of the event log.
const (
	eventsBytes = 64 << 20 // of one part
	eventsKeep  = 8        // parts, the current one included
	maxEvent    = 1 << 20  // bytes of one line
)

// OpenEvents goes on with the log in dir, which may be new. failure is told once if it cannot be written
// any more; the host goes on without.
func OpenEvents(dir string, failure func(error)) (*Events, error) {
	e := &Events{dir: dir, max: eventsBytes, keep: eventsKeep, failure: failure}
	path := filepath.Join(dir, EventsFile)
	last, err := lastLine(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && last == nil {
		// Rotated just before the end: the part before has the last line.
		last, err = lastLine(path + ".1")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if last != nil {
		var ev Event
		if err := json.Unmarshal(last, &ev); err != nil {
			return nil, fmt.Errorf("%s: its last line is no event: %w; move the file away", path, err)
		}
		e.seq, e.prev = ev.Seq, hashOf(last)
	}
	if err := e.open(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Events) open() error {
	f, err := os.OpenFile(filepath.Join(e.dir, EventsFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	e.f, e.size = f, st.Size()
	return nil
}

// lastLine returns the last whole line of a file, nil if it has none. A line that a crash has cut is
// taken off the file, so that the next one does not continue it.
func lastLine(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	from := max(0, size-2*maxEvent)
	b := make([]byte, size-from)
	if _, err := f.ReadAt(b, from); err != nil && err != io.EOF {
		return nil, err
	}
	end := bytes.LastIndexByte(b, '\n')
	if int64(end+1) < int64(len(b)) {
		if err := f.Truncate(from + int64(end+1)); err != nil {
			return nil, err
		}
	}
	if end < 0 {
		return nil, nil
	}
	b = b[:end]
	return b[bytes.LastIndexByte(b, '\n')+1:], nil
}

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:16])
}

// Add writes one event; the fields of data, a struct or a map, stand beside the event's own.
func (e *Events) Add(kind string, data any) {
	if e == nil {
		return
	}
	rest, err := json.Marshal(data)
	if err != nil || len(rest) < 2 || rest[0] != '{' || len(rest) > maxEvent/2 {
		rest = []byte(`{"detail":"an event that could not be written"}`)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.f == nil {
		return
	}
	head, err := json.Marshal(Event{Seq: e.seq + 1, Time: time.Now().UTC(), Kind: kind, Prev: e.prev})
	if err != nil {
		panic("BUG: event cannot be encoded: " + err.Error())
	}
	line := head
	if len(rest) > 2 {
		// The event's own fields come last: of two with one name, readers take the later.
		line = append(append(append([]byte{}, rest[:len(rest)-1]...), ','), head[1:]...)
	}
	if e.size+int64(len(line)) >= e.max {
		if err := e.rotate(); err != nil {
			e.fail(err)
			return
		}
	}
	if _, err := e.f.Write(append(line, '\n')); err != nil {
		e.fail(err)
		return
	}
	e.seq++
	e.size += int64(len(line)) + 1
	e.prev = hashOf(line)
}

func (e *Events) rotate() error {
	e.f.Close()
	e.f = nil
	path := filepath.Join(e.dir, EventsFile)
	for n := e.keep - 1; n >= 1; n-- {
		from := path
		if n > 1 {
			from = path + "." + strconv.Itoa(n-1)
		}
		if err := os.Rename(from, path+"."+strconv.Itoa(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return e.open()
}

func (e *Events) fail(err error) {
	if e.f != nil {
		e.f.Close()
		e.f = nil
	}
	if e.failure != nil {
		e.failure(err)
	}
}

// Close ends the log.
func (e *Events) Close() error {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.f == nil {
		return nil
	}
	err := e.f.Close()
	e.f = nil
	return err
}

// CheckEvents reads the parts of a log in dir, oldest first, and says where a line is missing or was
// changed. It returns the number of lines.
func CheckEvents(dir string) (lines int, err error) {
	parts, err := filepath.Glob(filepath.Join(dir, EventsFile+"*"))
	if err != nil {
		return 0, err
	}
	age := func(p string) int {
		n, _ := strconv.Atoi(strings.TrimPrefix(strings.TrimPrefix(filepath.Base(p), EventsFile), "."))
		return n
	}
	slices.SortFunc(parts, func(a, b string) int { return age(b) - age(a) })
	var last Event
	prev := ""
	for _, part := range parts {
		f, err := os.Open(part)
		if err != nil {
			return lines, err
		}
		in := bufio.NewScanner(f)
		in.Buffer(nil, 2*maxEvent)
		for n := 1; in.Scan(); n++ {
			var ev Event
			if err := json.Unmarshal(in.Bytes(), &ev); err != nil {
				f.Close()
				return lines, fmt.Errorf("%s:%d: no event: %w", part, n, err)
			}
			switch {
			case lines == 0: // the parts before were deleted in their time
			case ev.Seq != last.Seq+1:
				f.Close()
				return lines, fmt.Errorf("%s:%d: event %d follows event %d: some are missing", part, n, ev.Seq, last.Seq)
			case ev.Prev != prev:
				f.Close()
				return lines, fmt.Errorf("%s:%d: event %d was changed, or the one before it", part, n, ev.Seq)
			}
			last, prev = ev, hashOf(in.Bytes())
			lines++
		}
		err = in.Err()
		f.Close()
		if err != nil {
			return lines, fmt.Errorf("%s: %w", part, err)
		}
	}
	return lines, nil
}
