// The clients of a process: streams that get its output. The driver also types; the others watch.

package main

import (
	"time"

	"bhatti/agent/wire"
)

// wholeScreenScrolls resets a scroll region, whose rows belonged to another window size, and leaves the cursor
// where it is.
const wholeScreenScrolls = "\x1b7\x1b[r\x1b8"

type client struct {
	process  *process
	stream   *stream
	isDriver bool
	wants    attachment
	written  *inputCount   // of a driver with a name; nil: not counted
	changed  chan struct{} // holds one token: the follower has something to look at
	gone     chan struct{} // closed when a driver's input is over; nil: the process has none

	// Under process.mu.
	isStraight [2]bool  // by output
	isLost     bool     // a frame could not be sent
	isSending  bool     // its follower is
	isFollowed bool     // it has a follower
	at         [2]int64 // of the next byte of each output; of a straight one where it became so
	until      [2]int64 // where the output ended when it came
	show       string   // sent when the output until then is
}

// attachment is a client's request.
type attachment struct {
	isWatcher bool
	isOnce    bool // it wants no more than there is
	from      *wire.Offsets
	since     *time.Duration // ago
	size      *wire.Size
	writer    *string // the name that a driver goes by over all its connections
	isNew     bool

	keepsInputOpen bool
	showsAsOutput  bool // text that is no output comes as if it was
	// greet makes the first message; nil: there is none.
	greet func(wire.ProcessMessage) any
	// depart sends the last frame.
	depart func(c *client, state string)
}

func greetProcess(m wire.ProcessMessage) any { return m }

func departProcess(c *client, state string) {
	answer := wire.ProcessState{State: state}
	if state == wire.StateEnded {
		answer.Ended = c.process.ended
	}
	c.stream.succeed(answer)
}

// begin makes the stream the driver of a process that does not run yet, and lets it run.
func (p *process) begin(s *stream, wants attachment) {
	c := &client{process: p, stream: s, isDriver: true, isStraight: [2]bool{true, true}, wants: wants, changed: make(chan struct{}, 1)}
	if p.input != nil {
		c.gone = make(chan struct{})
	}
	p.mu.Lock()
	p.driver, c.written = c, p.countOf(wants.writer)
	p.mu.Unlock()
	s.watch(c.wake)
	s.listen(c.receive)
	if p.input == nil {
		s.refuseInput()
	}
	c.greet(wire.Offsets{})
	c.startFeeder()
	p.run()
	s.whenCancelled(func() { p.leave(c, wire.StateLeft) })
}

// attach adds a client to a process that runs or has ended.
func (p *process) attach(s *stream, wants attachment) error {
	c := &client{process: p, stream: s, isDriver: !wants.isWatcher, wants: wants, changed: make(chan struct{}, 1)}
	c.isSending, c.isFollowed = true, true // Its first message.
	if p.input != nil && c.isDriver {
		c.gone = make(chan struct{})
	}
	p.mu.Lock()
	if err := p.place(c); err != nil {
		p.mu.Unlock()
		return err
	}
	from := wire.Offsets{Stdout: c.at[0], Stderr: c.at[1]}
	var former *client
	var feeding chan struct{}
	if c.isDriver {
		former, feeding = p.driver, p.feeding
		p.driver, p.isInGrace, c.written = c, false, p.countOf(wants.writer)
	} else {
		if p.watchers == nil {
			p.watchers = map[*client]bool{}
		}
		p.watchers[c] = true
	}
	p.mu.Unlock()
	if former != nil {
		former.depart(wire.StateTakenOver)
	}
	s.watch(c.wake)
	if c.isDriver {
		s.listen(c.receive)
		c.resize()
		c.wake() // The pumps may have waited for a driver.
	}
	if !c.isDriver || p.input == nil {
		s.refuseInput()
	}
	go func() {
		if feeding != nil {
			<-feeding // Only then the count of the input is right.
		}
		c.greet(from)
		c.startFeeder()
		c.follow()
	}()
	s.whenCancelled(func() { p.leave(c, wire.StateLeft) })
	return nil
}

// place finds where the client's output begins. It holds p.mu.
func (p *process) place(c *client) error {
	wants := c.wants
	if wants.isWatcher && len(p.watchers) >= watchersMax {
		return wire.Errorf(wire.LimitExceeded, "%d clients watch %s, which is the limit", watchersMax, p.id)
	}
	for i, o := range p.outputs {
		c.until[i] = o.ring.total
		switch {
		case wants.from != nil:
			from := wants.from.Stdout
			if o.channel == wire.Stderr {
				from = wants.from.Stderr
			}
			if from < 0 || from > o.ring.total {
				return wire.Errorf(wire.Invalid, "%s has written %d bytes, not %d", p.id, o.ring.total, from)
			}
			c.at[i] = from
			if from < o.ring.first {
				c.at[i] = o.ring.first
			}
		case wants.since != nil:
			c.at[i] = o.ring.since(time.Since(p.created) - *wants.since)
		default:
			c.at[i] = p.oldest(o)
		}
	}
	isRedrawn := c.isDriver && wants.size != nil && p.terminal != nil && wants.from == nil
	if isRedrawn && *wants.size != p.terminal.size() {
		c.show = wholeScreenScrolls
	}
	return nil
}

// oldest is the first kept byte of an output that is of use.
func (p *process) oldest(o *output) int64 {
	if p.terminal != nil {
		return o.ring.screenStart()
	}
	return o.ring.first
}

func (c *client) greet(from wire.Offsets) {
	if c.wants.greet == nil {
		return
	}
	greeting := wire.ProcessMessage{
		Process: c.process.describe(), IsNew: c.wants.isNew, From: from, Input: c.process.allInput.bytes(),
	}
	if c.written != nil {
		written := c.written.bytes()
		greeting.Written = &written
	}
	first := c.wants.greet(greeting)
	if first != nil {
		c.stream.message(first)
	}
}

// resize gives the terminal the client's size.
func (c *client) resize() {
	size, terminal := c.wants.size, c.process.terminal
	switch {
	case size == nil || terminal == nil:
	case c.wants.from == nil:
		terminal.show(*size)
	case *size != terminal.size():
		terminal.resize(*size)
	}
}

// wake lets whoever sends to this client look again. It must not block.
func (c *client) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
	if c.isDriver {
		c.process.pokeOutputs()
	}
}

// wakeClients wakes the followers. It holds p.mu.
func (p *process) wakeClients() {
	for c := range p.watchers {
		c.wake()
	}
	if p.driver != nil && !p.driver.hasAll() {
		p.driver.wake()
	}
}

// remove ends the client's place; false if it has none any more. It holds p.mu.
func (p *process) remove(c *client) bool {
	if p.driver == c {
		p.driver = nil
		return true
	}
	isThere := p.watchers[c]
	delete(p.watchers, c)
	return isThere
}

// leave is for a client whose stream ends before the process.
func (p *process) leave(c *client, state string) {
	p.mu.Lock()
	if !p.remove(c) {
		p.mu.Unlock()
		return
	}
	isAbandoned := c.isDriver && p.ended == nil && p.startGrace(c)
	p.mu.Unlock()
	if isAbandoned {
		p.abandon()
	}
	c.depart(state)
	p.settle()
}

// depart stops the client's input and follower and sends its last frame. The client has been removed.
func (c *client) depart(state string) {
	c.wake()
	if c.isDriver {
		if c.gone != nil {
			close(c.gone)
		}
		c.stream.stopInput()
		c.process.interruptInput()
	}
	c.wants.depart(c, state)
}
