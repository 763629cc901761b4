// The input of a process: typed by its driver, or written by other requests. Each piece is written whole or counted.

package main

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"bhatti/agent/wire"
)

// writersMax is how many names of drivers a process counts input for. A count is never given up: a driver that came
// back to a new one would write twice.
const (
	writersMax     = 16
	writerBytesMax = 128
)

// inputCount counts input that the pipe or terminal has taken.
type inputCount struct {
	taken      int64 // atomic
	endTypedAt int64 // taken when the end was typed last, -1 before; under writing
}

func (n *inputCount) bytes() int64 { return atomic.LoadInt64(&n.taken) }

// countOf is the count of a driver's own input; nil if it has no name. It holds p.mu.
func (p *process) countOf(writer *string) *inputCount {
	if writer == nil || p.input == nil || len(*writer) == 0 || len(*writer) > writerBytesMax {
		return nil
	}
	n := p.writers[*writer]
	if n == nil && len(p.writers) < writersMax {
		if p.writers == nil {
			p.writers = map[string]*inputCount{}
		}
		n = &inputCount{endTypedAt: -1}
		p.writers[*writer] = n
	}
	return n
}

// inputPiece says whose input it is.
type inputPiece struct {
	stream *stream
	gone   <-chan struct{} // closed when its writer has gone
	count  *inputCount     // nil: only that of all
}

// startFeeder begins to write the driver's input. The former driver's feeder has stopped.
func (c *client) startFeeder() {
	p := c.process
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.driver != c || p.input == nil {
		return
	}
	feeding := make(chan struct{})
	p.feeding = feeding
	go func() {
		defer close(feeding)
		c.feed()
	}()
}

// feed writes the driver's input to the program.
func (c *client) feed() {
	p, wants, from := c.process, true, inputPiece{c.stream, c.gone, c.written}
	for bytes := c.stream.takeInput(); bytes != nil; bytes = c.stream.takeInput() {
		// Input that the program no longer reads is dropped, so that the host does not wait for ever.
		wants = wants && p.writeInput(from, bytes, nil) == nil
		c.stream.giveBack(len(bytes))
	}
	if !c.wants.keepsInputOpen && c.stream.hasWholeInput() {
		p.endInput(from)
	}
}

// writeInput writes bytes unless the stream's input is stopped before. With at, the offset of the first of them,
// bytes that the program has taken already are skipped.
func (p *process) writeInput(from inputPiece, bytes []byte, at *int64) error {
	if !p.takeTurn(from.gone) {
		return errGivenUp
	}
	defer p.endTurn()
	if at != nil {
		taken := p.allInput.bytes() - *at
		if taken < 0 {
			return wire.Errorf(wire.Conflict, "%s has taken %d bytes of input, not %d", p.id, p.allInput.bytes(), *at)
		}
		*at += int64(len(bytes))
		bytes = bytes[minimum(len(bytes), int(taken)):]
	}
	n, err := p.writePiece(from.stream, bytes)
	atomic.AddInt64(&p.allInput.taken, int64(n))
	if from.count != nil {
		atomic.AddInt64(&from.count.taken, int64(n))
	}
	return err
}

// takeTurn waits until nobody else writes input; false means that the writer has gone meanwhile.
func (p *process) takeTurn(gone <-chan struct{}) bool {
	select {
	case p.writing <- struct{}{}:
		return true
	case <-gone:
		return false
	}
}

func (p *process) endTurn() { <-p.writing }

// writePiece writes until all is written or the stream's input is stopped. It is this writer's turn.
func (p *process) writePiece(s *stream, bytes []byte) (written int, err error) {
	for written < len(bytes) {
		switch {
		case s.hasStopped() || p.hasExited():
			return written, errGivenUp
		case !p.takesInput():
			return written, wire.Errorf(wire.Conflict, "the input of %s is closed", p.id)
		}
		n, err := p.input.Write(bytes[written:])
		written += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // Somebody's input is stopped, perhaps this.
			_ = p.input.SetWriteDeadline(time.Time{})
		case err != nil:
			return written, err
		}
	}
	return written, nil
}

// interruptInput lets the writer look whether it must stop.
func (p *process) interruptInput() {
	if p.input != nil {
		_ = p.input.SetWriteDeadline(past)
	}
}

// endInput closes the pipe, or has the effect of a user's Ctrl-D.
func (p *process) endInput(from inputPiece) {
	if !p.takeTurn(from.gone) {
		return
	}
	defer p.endTurn()
	if p.terminal == nil {
		p.closeInput()
		return
	}
	// A driver that has come back ends the same input again.
	count := from.count
	if count == nil {
		count = &p.allInput
	}
	if taken := count.bytes(); count.endTypedAt != taken {
		count.endTypedAt = taken
		_, _ = p.writePiece(from.stream, []byte{endOfInput})
	}
}

// closeInput closes the pipe once. It is the caller's turn.
func (p *process) closeInput() {
	if atomic.CompareAndSwapInt32(&p.inputShut, 0, 1) {
		p.input.Close()
	}
}

// shutInput ends all input of a program that has exited.
func (p *process) shutInput() {
	if p.input == nil {
		return
	}
	p.mu.Lock()
	driver := p.driver
	p.mu.Unlock()
	if driver != nil {
		driver.stream.stopInput()
	}
	p.interruptInput()
	if p.terminal == nil {
		p.takeTurn(nil)
		p.closeInput()
		p.endTurn()
	}
}

// receive is the consumer of the driver's messages.
func (c *client) receive(payload []byte) {
	var message wire.ToProcess
	if err := wire.Decode(payload, &message); err != nil {
		return
	}
	p := c.process
	p.mu.Lock()
	isDriver := p.driver == c
	p.mu.Unlock()
	if !isDriver {
		return
	}
	if number, isKnown := signalNumbers[message.Signal]; isKnown {
		p.signal(number, message.Scope, message.By)
	}
	if message.Resize != nil && p.terminal != nil {
		p.terminal.resize(*message.Resize)
	}
}
