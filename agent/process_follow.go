// How clients get output: straight from the pumps, or from the rings by a follower.
//
// An output is straight to a driver that has all of it: its pump sends what it reads. The rest is sent by the client's
// follower, a goroutine that reads the rings. Only the pump makes its output straight, when nothing is on its way.

package main

import "bhatti/agent/wire"

// hasAll reports whether all outputs are straight. It holds process.mu.
func (c *client) hasAll() bool {
	return c.isStraight[0] && (len(c.process.outputs) == 1 || c.isStraight[1])
}

// straighten makes an output straight if its pump has nothing to wait for. It holds process.mu.
func (c *client) straighten(i int) bool {
	isReady := c.isDriver && c.at[i] == c.process.outputs[i].ring.total && !c.isSending && c.show == ""
	if !c.isStraight[i] && isReady {
		c.isStraight[i] = true
		if c.hasAll() {
			c.wake()
		}
	}
	return c.isStraight[i]
}

// bend ends the straight way of an output: its driver gets the rest from the ring. It is for the output's pump, which
// has sent what it read, and holds process.mu.
func (c *client) bend(i int) {
	c.isStraight[i], c.at[i] = false, c.process.outputs[i].ring.total
	if !c.isFollowed {
		c.isFollowed = true
		go c.follow()
	}
}

// follow sends the kept output until all outputs are straight, or the client has no place any more.
func (c *client) follow() {
	for {
		buffer := chunks.take()
		next := c.take(buffer[dataRoom:])
		var err error
		if next.count > 0 {
			err = c.stream.sendData(next.channel, buffer[:dataRoom+next.count])
		}
		chunks.giveBack(buffer)
		switch {
		case err != nil || next.isOver:
			return
		case next.state != "":
			c.depart(next.state)
			c.process.settle()
			return
		case next.message != nil:
			c.stream.message(next.message)
		case next.count == 0:
			<-c.changed
		}
	}
}

// piece is a client's next bytes or message; state: its last frame. Without either the client has to wait.
type piece struct {
	channel byte
	count   int
	message any
	state   string
	isOver  bool
}

// take copies the next bytes for which there is credit.
func (c *client) take(buffer []byte) piece {
	p := c.process
	p.mu.Lock()
	defer p.mu.Unlock()
	c.isSending = false
	if p.driver != c && !p.watchers[c] || c.hasAll() {
		c.isFollowed = false
		return piece{isOver: true}
	}
	next := c.next(buffer)
	c.isSending = next != piece{}
	return next
}

// next is take for a client that has a place. It holds process.mu.
func (c *client) next(buffer []byte) piece {
	p := c.process
	if message := c.skip(); message != nil {
		return piece{message: message}
	}
	i, end := c.oldest()
	if i < 0 {
		return c.finish(buffer)
	}
	o, count := p.outputs[i], c.stream.reserve(minimum(len(buffer), int(end-c.at[i])))
	if count == 0 {
		return piece{}
	}
	o.ring.copyFrom(c.at[i], buffer[:count])
	c.at[i] += int64(count)
	if c.isDriver {
		o.poke()
	}
	return piece{channel: o.channel, count: count}
}

// oldest finds the output with the oldest bytes that the follower has to send, and where they end; -1 if there are
// none. It holds process.mu.
func (c *client) oldest() (output int, end int64) {
	isShort := c.show != "" || c.wants.isOnce
	lacks := func(i int, end int64) int64 {
		if isShort && end > c.until[i] {
			end = c.until[i]
		}
		if c.isStraight[i] || end <= c.at[i] {
			return 0
		}
		return end
	}
	for _, run := range c.process.order {
		if end := lacks(run.output, run.end); end > 0 {
			return run.output, end
		}
	}
	for i, o := range c.process.outputs {
		if end := lacks(i, o.ring.total); end > 0 {
			return i, end
		}
	}
	return -1, 0
}

// finish decides how it goes on when the client has all that there is. It holds process.mu.
func (c *client) finish(buffer []byte) piece {
	p := c.process
	switch {
	case c.show != "" && c.wants.showsAsOutput:
		count := copy(buffer[:c.stream.reserve(len(c.show))], c.show)
		c.show = c.show[count:]
		return piece{channel: wire.Stdout, count: count}
	case c.show != "":
		message := wire.ProcessShow{Show: c.show}
		c.show = ""
		return piece{message: message}
	case p.ended != nil && !c.lags():
		p.remove(c)
		return piece{state: wire.StateEnded}
	case c.wants.isOnce:
		p.remove(c)
		return piece{state: wire.StateLeft}
	}
	return piece{}
}

func (c *client) lags() bool {
	for i, o := range c.process.outputs {
		if !c.isStraight[i] && c.at[i] < o.ring.total {
			return true
		}
	}
	return false
}

// skip moves a client that has fallen behind to the oldest kept byte. It returns the message about that, or nil.
func (c *client) skip() any {
	var missed [2]int64
	for i, o := range c.process.outputs {
		if !c.isStraight[i] && c.at[i] < o.ring.first {
			to := c.process.oldest(o)
			missed[i] = to - c.at[i]
			c.at[i] = to
		}
	}
	if missed == [2]int64{} {
		return nil
	}
	return wire.ProcessSkipped{Skipped: wire.Offsets{Stdout: missed[0], Stderr: missed[1]}}
}
