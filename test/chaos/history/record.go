package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// A Recorder writes a record. Its methods may be called from any goroutine.
type Recorder struct {
	begun time.Time

	mu    sync.Mutex
	out   *bufio.Writer
	lines int64
	ops   int64
	head  []byte
	err   error // of the first write that failed
}

// NewRecorder begins a record.
func NewRecorder(w io.Writer) *Recorder {
	return &Recorder{begun: time.Now(), out: bufio.NewWriterSize(w, 1<<20)}
}

// Op is a number for an operation, from 1.
func (r *Recorder) Op() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops++
	return r.ops
}

// Add writes a line at the end, and gives it its time.
func (r *Recorder) Add(l Line) {
	const timeless = `{"at":0`
	l.Micros = 0
	text, err := json.Marshal(l)
	if err != nil || !bytes.HasPrefix(text, []byte(timeless)) {
		panic(fmt.Sprintf("history: a line is encoded as %.40q: %v", text, err)) // It has only texts, numbers and lists of them.
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines++
	// The time is taken under the lock, so that it grows from line to line.
	r.head = strconv.AppendInt(append(r.head[:0], timeless[:len(timeless)-1]...), time.Since(r.begun).Microseconds(), 10)
	for _, part := range [][]byte{r.head, text[len(timeless):], {'\n'}} {
		if _, err := r.out.Write(part); err != nil && r.err == nil {
			r.err = fmt.Errorf("history: %w", err)
		}
	}
}

// Flush writes out what is buffered, and returns the first error of all writes.
func (r *Recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.out.Flush(); err != nil && r.err == nil {
		r.err = fmt.Errorf("history: %w", err)
	}
	return r.err
}

// lineBytesMax bounds a line of a record that is read; one with a page of sync is the longest.
const lineBytesMax = 16 << 20

// Read calls do with each line of a record and its text.
func Read(in io.Reader, do func(l *Line, text []byte)) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 1<<20), lineBytesMax)
	for n := int64(1); scanner.Scan(); n++ {
		l := &Line{N: n}
		if err := json.Unmarshal(scanner.Bytes(), l); err != nil {
			return fmt.Errorf("history: line %d: %w", n, err)
		}
		do(l, scanner.Bytes())
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}
