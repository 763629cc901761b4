// A connection from the host: it reads the preamble, passes incoming frames to the streams, and writes theirs.
//
//	search ── host preamble ──► answer ──► read frames ──┐
//	   ▲                                                 │ peer gone, broken frame, preamble, quiesced
//	   └──── streams closed, their processes killed ◄────┘
//
// The reading goroutine never waits for an operation or for a stream that is not read: a stream's input is limited
// by its window. Operations start in order on one goroutine for all connections: the first command of a clone does
// not wait for a fresh stack to grow. Writers take turns frame by frame. After the end of a connection no byte of
// it is written.

package main

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"bhatti/agent/wire"
)

// port is the byte stream to the host.
type port interface {
	io.Reader
	io.Writer
	SetWriteDeadline(time.Time) error
}

// errPeerGone is returned once by a port that outlives its peer when the peer disconnects.
var errPeerGone = errors.New("the host closed the channel")

// errOver ends a connection normally.
var errOver = errors.New("the connection is over")

// serve serves one host after the other until the port fails.
func (a *agent) serve(p port) error {
	reader := wire.NewReader(p)
	tasks := make(chan task, tasksMax)
	defer close(tasks)
	go a.perform(tasks)
	for {
		switch err := a.serveOne(p, reader, tasks); err {
		case errPeerGone:
			reader.Reset()
		case errOver, wire.ErrBroken:
		default:
			return err
		}
	}
}

func (a *agent) serveOne(p port, reader *wire.Reader, tasks chan<- task) error {
	preamble, err := reader.Preamble()
	if err != nil {
		return err
	}
	if spoken := a.generation(); preamble.Generation > spoken {
		preamble.Generation = spoken
	}
	c := &connection{
		agent: a, port: p,
		nonce:      preamble.Nonce,
		generation: preamble.Generation,
		tasks:      tasks,
	}
	defer c.end()
	if err := c.write(nil, wire.AppendGuestPreamble(nil, preamble)); err != nil {
		return errOver
	}
	for {
		frame, err := reader.Frame()
		if err != nil {
			return err
		}
		if err := c.handle(frame); err != nil {
			return err
		}
	}
}

// tasksMax limits the operations waiting to start. Beyond it the host has to wait.
const tasksMax = 64

// task is the start of an operation, or a message to a started one.
type task struct {
	stream  *stream
	isOpen  bool
	payload []byte
}

type connection struct {
	agent      *agent
	port       port
	tasks      chan<- task
	nonce      [wire.NonceBytes]byte
	generation uint16

	writing sync.Mutex // held for one frame; guards isOver and the streams' isClosed
	isOver  bool

	mu         sync.Mutex
	streams    openStreams
	isQuiesced bool
}

// openStreams is a list: it is short, and a map would be more code to run in a machine that wakes.
type openStreams []*stream

// find returns nil if there is no stream of that id.
func (all openStreams) find(id uint32) *stream {
	for _, s := range all {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (all *openStreams) remove(s *stream) {
	for i, one := range *all {
		if one == s {
			last := len(*all) - 1
			(*all)[i], (*all)[last] = (*all)[last], nil
			*all = (*all)[:last]
			return
		}
	}
}

// handle processes one frame. An error ends the connection.
func (c *connection) handle(frame wire.Frame) error {
	if frame.Type == wire.Open {
		return c.open(frame)
	}
	c.mu.Lock()
	s, isQuiesced := c.streams.find(frame.Stream), c.isQuiesced
	c.mu.Unlock()
	if isQuiesced {
		return errOver
	}
	if s == nil {
		return nil
	}
	switch frame.Type {
	case wire.Data:
		return s.receive(frame.Payload[0], frame.Payload[1:])
	case wire.DataAt:
		place, err := wire.ParseDataAt(frame.Payload)
		if err != nil {
			return err
		}
		return s.receiveAt(place)
	case wire.Window:
		return s.addCredit(binary.BigEndian.Uint32(frame.Payload))
	case wire.End:
		return s.receiveEnd(frame.Payload[0])
	case wire.Message:
		c.tasks <- task{stream: s, payload: clone(frame.Payload)}
	case wire.Close:
		s.cancel()
	}
	return nil
}

func (c *connection) open(frame wire.Frame) error {
	c.mu.Lock()
	isKnown := c.streams.find(frame.Stream) != nil
	isQuiesced, isFull := c.isQuiesced, len(c.streams) >= wire.StreamsMax
	s := newStream(c, frame.Stream)
	if !isKnown && !isQuiesced && !isFull {
		c.streams = append(c.streams, s)
	}
	c.mu.Unlock()
	switch {
	case isQuiesced:
		return errOver
	case isKnown:
		return wire.ErrBroken
	case isFull:
		s.fail(wire.Errorf(wire.LimitExceeded, "%d streams are open, which is the limit", wire.StreamsMax))
	default:
		c.tasks <- task{stream: s, isOpen: true, payload: clone(frame.Payload)}
	}
	return nil
}

// perform starts operations in the order of their arrival.
func (a *agent) perform(tasks <-chan task) {
	for t := range tasks {
		if t.isOpen {
			a.start(t.stream, t.payload)
		} else {
			t.stream.deliver(t.payload)
		}
	}
}

// write sends one frame of a stream, unless its close frame has been sent.
func (c *connection) write(s *stream, frame []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.isOver || s != nil && s.isClosed {
		return errOver
	}
	if s != nil && frame[0] == byte(wire.Close) {
		s.isClosed = true
	}
	if _, err := c.port.Write(frame); err != nil {
		c.isOver = true
		return errOver
	}
	return nil
}

// end stops all writing, then cancels every stream.
func (c *connection) end() {
	if c.writing.TryLock() {
		c.isOver = true
		c.writing.Unlock()
	} else {
		// Cancels a write that waits for a host which does not read.
		_ = c.port.SetWriteDeadline(time.Now())
		c.writing.Lock()
		c.isOver = true
		c.writing.Unlock()
		_ = c.port.SetWriteDeadline(time.Time{})
	}

	c.mu.Lock()
	streams := append([]*stream(nil), c.streams...)
	c.mu.Unlock()
	for _, s := range streams {
		s.cancel()
	}
}

// remove unregisters a stream that is about to send its close frame. A refused stream was never registered and must
// not remove another.
func (c *connection) remove(s *stream) {
	c.mu.Lock()
	c.streams.remove(s)
	c.mu.Unlock()
}

// quiesce makes the connection accept no further frame if stream id is its only one.
func (c *connection) quiesce(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams.find(id) == nil || len(c.streams) > 1 {
		return false
	}
	c.isQuiesced = true
	return true
}

func clone(bytes []byte) []byte { return append([]byte(nil), bytes...) }
