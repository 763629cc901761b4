// exec: a user's command, its streams and its end.
//
//	start ── "started" ──► run ── leader exits ──► send what it had written ──► close
//	                        │
//	                        └── host closes, connection lost ──► kill its session, then the same way
//
// Output that a background child still holds open does not delay the end, but is read and dropped from then on:
// otherwise a server started with & would die of its next log line.

package main

import (
	"os"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

// command is a running exec.
type command struct {
	stream   *stream
	child    *child
	input    *os.File // nil: none
	outputs  []output
	terminal *terminal // nil: pipes
}

type output struct {
	channel byte
	file    *os.File
}

func (a *agent) exec(s *stream, payload []byte) {
	var request wire.Exec
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	a.mu.Lock()
	sandboxEnv := a.env
	a.mu.Unlock()
	launch, err := prepareLaunch(request, sandboxEnv)
	if err != nil {
		s.fail(asError(err))
		return
	}
	c, err := startCommand(a.reaper, s, request, launch)
	if err != nil {
		s.fail(asError(err))
		return
	}
	s.listen(c.receive)
	s.message(wire.Started{Started: wire.Pid{Pid: c.child.pid}})
	go c.supervise()
}

// startCommand opens the command's files and starts it. It always closes its copies of the command's ends.
func startCommand(r *reaper, s *stream, request wire.Exec, launch launch) (*command, error) {
	c := &command{stream: s}
	var theirs [3]int
	var err error
	if request.Terminal != nil {
		theirs, err = c.openTerminal(*request.Terminal, launch.account)
	} else {
		theirs, err = c.openPipes(request.Stdin, launch.account)
	}
	if err != nil {
		return nil, err
	}
	attributes := &syscall.ProcAttr{
		Dir:   launch.directory,
		Env:   launch.env,
		Files: []uintptr{uintptr(theirs[0]), uintptr(theirs[1]), uintptr(theirs[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: c.terminal != nil, Credential: launch.account.credential()},
	}
	c.child, err = r.start(launch.path, request.Argv, attributes)
	if c.terminal == nil {
		for i, fd := range theirs {
			if i > 0 || request.Stdin {
				syscall.Close(fd)
			}
		}
	}
	if err != nil {
		c.closeOutputs()
		if c.input != nil {
			c.input.Close()
		}
		return nil, launch.explain(err)
	}
	if !request.Stdin {
		s.refuseInput()
		_ = s.receiveEnd(wire.Stdin)
	}
	return c, nil
}

// openPipes returns the command's ends. They belong to its user, who may reopen /dev/stdout.
func (c *command) openPipes(hasInput bool, owner account) (theirs [3]int, err error) {
	var opened []int
	defer func() {
		if err != nil {
			for _, fd := range opened {
				syscall.Close(fd)
			}
		}
	}()
	pipe := func() (read, write int, err error) {
		var ends [2]int
		if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
			return 0, 0, wire.Errorf(wire.LimitExceeded, "no pipe for the command: %v", err)
		}
		opened = append(opened, ends[0], ends[1])
		owner.own(ends[0])
		return ends[0], ends[1], nil
	}
	var ours [3]int
	if hasInput {
		if theirs[0], ours[0], err = pipe(); err != nil {
			return theirs, err
		}
	} else {
		if theirs[0], err = nullFile(); err != nil {
			return theirs, wire.Errorf(wire.Internal, "open /dev/null: %v", err)
		}
	}
	for _, channel := range []int{1, 2} {
		if ours[channel], theirs[channel], err = pipe(); err != nil {
			return theirs, err
		}
	}
	if hasInput {
		c.input = pollable(ours[0], "stdin")
	}
	c.outputs = []output{{wire.Stdout, pollable(ours[1], "stdout")}, {wire.Stderr, pollable(ours[2], "stderr")}}
	return theirs, nil
}

var null struct {
	once sync.Once
	fd   int
	err  error
}

// nullFile is opened once, for every command without input.
func nullFile() (int, error) {
	null.once.Do(func() { null.fd, null.err = syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
	return null.fd, null.err
}

func (c *command) openTerminal(wanted wire.Terminal, owner account) (theirs [3]int, err error) {
	c.terminal, err = openTerminal(wanted.Size, owner)
	if err != nil {
		return theirs, wire.Errorf(wire.Unavailable, "no terminal for the command: %v", err)
	}
	c.input = c.terminal.master
	c.outputs = []output{{wire.Stdout, c.terminal.master}}
	return [3]int{c.terminal.slave, c.terminal.slave, c.terminal.slave}, nil
}

// pollable registers a descriptor with the runtime's poller.
func pollable(fd int, name string) *os.File {
	_ = syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// receive is the consumer of the host's messages.
func (c *command) receive(payload []byte) {
	var message wire.ToProcess
	if err := wire.Decode(payload, &message); err != nil {
		return
	}
	if number, isKnown := signalNumbers[message.Signal]; isKnown {
		c.child.signal(number)
	}
	if message.Resize != nil && c.terminal != nil {
		c.terminal.resize(*message.Resize)
	}
}

// supervise follows the command to its end.
func (c *command) supervise() {
	if c.input != nil {
		go c.feed()
	}
	var pumps sync.WaitGroup
	pumps.Add(len(c.outputs))
	for i := range c.outputs {
		go func(o output) {
			defer pumps.Done()
			c.pump(o)
		}(c.outputs[i])
	}
	c.stream.whenCancelled(c.child.killSession)
	<-c.child.exited
	c.stream.stopInput()
	if c.terminal != nil {
		c.terminal.closeSlave()
	}
	if c.input != nil {
		_ = c.input.SetWriteDeadline(time.Now())
	}
	for _, o := range c.outputs {
		_ = o.file.SetReadDeadline(time.Now())
	}
	pumps.Wait()
	c.stream.succeed(exitedAs(c.child.status))
	c.leaveOutputs()
}

// feed writes the host's input to the command.
func (c *command) feed() {
	wants := true
	for bytes := c.stream.takeInput(); bytes != nil; bytes = c.stream.takeInput() {
		if wants {
			_, err := c.input.Write(bytes)
			// Input that the command no longer reads is dropped, so that the host does not wait for ever.
			wants = err == nil
		}
		c.stream.giveBack(len(bytes))
	}
	if c.terminal != nil {
		c.terminal.endInput()
		return
	}
	c.input.Close()
}

func exitedAs(status syscall.WaitStatus) wire.Exited {
	if !status.Signaled() {
		return wire.Exited{ExitCode: status.ExitStatus()}
	}
	name := signalName(status.Signal())
	return wire.Exited{ExitCode: 128 + int(status.Signal()), Signal: &name}
}

func minimum(a, b int) int {
	if a < b {
		return a
	}
	return b
}
