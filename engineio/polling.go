package engineio

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

// separator stands between the packets of a payload (protocol 4, "HTTP long-polling").
const separator = '\x1e'

// probedPoll is how long a poll may wait once a WebSocket has been probed: the client waits for its end to go on, but should not run in circles.
const probedPoll = 10 * time.Millisecond

// pollBytesMax bounds the body of a poll's answer, unless a single frame is larger. It is a copy, and counted no more in the queue.
const pollBytesMax = 128 << 10

func (s *Server) openPolling(w http.ResponseWriter, r *http.Request) {
	from, ok := s.admit(w, r)
	if !ok {
		return
	}
	c := s.newConn(r, wsConn{}, from)
	c.opened()
	if cookie := s.cookie(c.id); cookie != "" {
		w.Header().Add("Set-Cookie", cookie)
	}
	_ = c.respond(w, "text/plain; charset=UTF-8", []byte(s.openPacket(c, `"websocket"`))) // Who has not got it does not poll.
}

// respond writes the answer to a poll or a POST. An error may also show only later: what is short is written after the request.
func (c *Conn) respond(w http.ResponseWriter, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	// A server that cannot set deadlines has its own, and net/http lifts this one after the request. It is not flushed here: a client that had
	// the answer to a POST could send the next while this one is still counted.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(c.srv.opts.WriteTimeout))
	_, err := w.Write(body)
	return err
}

// servePoll answers a poll when there is something to send, or to say.
func (c *Conn) servePoll(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	if now := c.srv.now(); c.state == stateOpen && c.isOverdue(now) {
		c.mu.Unlock()
		c.look(now) // The clock has not come to it yet.
		c.mu.Lock()
	}
	switch {
	case c.state == stateClosed:
		c.mu.Unlock()
		refuse(w, r, unknownSID)
		return
	case c.ws.nc != nil:
		c.mu.Unlock()
		refuse(w, r, badRequest)
		return
	case c.poll != nil:
		// Two polls at once: the official server ends the session, and so does the specification.
		c.mu.Unlock()
		c.abort(ReasonTransportError)
		refuse(w, r, badRequest)
		return
	}
	if !c.awaitQueue(r) {
		c.mu.Unlock()
		c.abort(ReasonTransportError)
		return
	}
	if c.ws.nc != nil {
		c.mu.Unlock()
		refuse(w, r, badRequest)
		return
	}
	body, ended := c.payload()
	c.mu.Unlock()
	if ended {
		c.abort(c.reason)
	}
	err := c.respond(w, "text/plain; charset=UTF-8", body)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		c.unwritten(err) // What was taken from the queue is lost.
	}
}

// awaitQueue waits until there is something to answer the poll r with, and reports whether the client stayed. Called with mu held, which it
// gives up meanwhile.
func (c *Conn) awaitQueue(r *http.Request) bool {
	var soon <-chan time.Time
	for len(c.queue) == 0 && c.state == stateOpen && c.ws.nc == nil {
		if c.probed && soon == nil {
			soon = time.After(probedPoll)
		}
		wake := make(chan struct{}, 1)
		c.poll = wake
		c.mu.Unlock()
		stayed, late := true, false
		select {
		case <-wake:
		case <-soon:
			late = true
		case <-r.Context().Done():
			stayed = false
		}
		c.mu.Lock()
		c.poll = nil
		if !stayed || late {
			return stayed
		}
	}
	return true
}

// payload takes from the queue what a poll is answered with; ended is true if the session ends with it. Called with mu held.
func (c *Conn) payload() (body []byte, ended bool) {
	switch {
	case c.state == stateClosed:
		return []byte{packetClose}, false
	case c.state == stateClosing && c.reason == ReasonTransportClose:
		return []byte{packetNoop}, true // The client itself closed, and wants nothing more.
	}
	size, n := 0, 0
	for n < len(c.queue) {
		more := c.queue[n].payloadSize() + 1
		if n > 0 && size+more > min(c.srv.opts.MaxPayload, pollBytesMax) {
			break
		}
		size += more
		n++
	}
	body = make([]byte, 0, size+2)
	for i, f := range c.queue[:n] {
		if i > 0 {
			body = append(body, separator)
		}
		body = f.appendPayload(body)
		c.queueBytes -= len(f.wire)
		if f.key != "" {
			c.droppable--
		}
	}
	c.shard.counts.packetsOut.Add(int64(n))
	c.shard.counts.bytesOut.Add(int64(len(body)))
	if n == len(c.queue) {
		c.emptyQueue()
	} else {
		c.queue = append([]*Frame(nil), c.queue[n:]...)
	}
	if c.state == stateClosing && len(c.queue) == 0 {
		if len(body) > 0 {
			body = append(body, separator)
		}
		return append(body, packetClose), true
	}
	if len(body) == 0 {
		body = append(body, packetNoop)
	}
	return body, false
}

// servePost takes the packets of a POST, in the goroutine of its request: the answer says that they have been handled.
func (c *Conn) servePost(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	upgraded, ended, overlap := c.ws.nc != nil, c.state == stateClosed, c.posting
	if !upgraded && !ended && !overlap {
		c.posting = true
	}
	c.mu.Unlock()
	switch {
	case ended:
		refuse(w, r, unknownSID)
		return
	case upgraded:
		refuse(w, r, badRequest)
		return
	case overlap:
		c.abort(ReasonTransportError)
		refuse(w, r, badRequest)
		return
	}
	defer func() {
		c.mu.Lock()
		c.posting = false
		c.mu.Unlock()
	}()
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "application/octet-stream" {
		c.abort(ReasonTransportError) // Protocol 4 has binary as base64 in a text.
		refuse(w, r, badRequest)
		return
	}
	body, err := c.readBody(w, r)
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		refuse(w, r, payloadTooBig)
		return
	case err != nil:
		c.abort(ReasonTransportError)
		refuse(w, r, badRequest)
		return
	}
	if !c.receivePayload(body) && c.endedBy(ReasonParseError) {
		refuse(w, r, badRequest)
		return
	}
	// The type is that of the official server: text/plain made some browsers offer a download.
	_ = c.respond(w, "text/html", []byte("ok")) // Who has not got it ends the session, or is found by the missing pong.
}

// readBody reads the body of a POST within the bounds of size and time.
func (c *Conn) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := int64(c.srv.opts.MaxPayload)
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit} // What is announced to be too big is not read.
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(c.srv.opts.MessageTimeout)) // A server that cannot has its own deadline.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		_ = rc.SetReadDeadline(time.Time{}) // As above.
	}
	return body, err
}

// receivePayload handles the packets of a payload, and reports whether all were handled and left the connection open.
func (c *Conn) receivePayload(body []byte) bool {
	if bytes.Count(body, []byte{separator}) >= c.srv.opts.PayloadPacketsMax || !utf8.Valid(body) {
		return c.malformed()
	}
	for packet := range bytes.SplitSeq(body, []byte{separator}) {
		binary := len(packet) > 0 && packet[0] == packetBinary
		if binary {
			encoding := base64.StdEncoding
			if len(packet[1:])%4 != 0 {
				encoding = base64.RawStdEncoding // The padding may be left out, as the official server allows.
			}
			data, err := encoding.AppendDecode(nil, packet[1:])
			if err != nil {
				return c.malformed()
			}
			packet = data
		}
		if !c.receive(packet, binary) {
			return false
		}
	}
	return true
}

func (c *Conn) endedBy(reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason == reason
}
