// A session reads its terminal whether or not a client is attached, and keeps the newest output.

package main

import (
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

// session is a command with a terminal. shown, client and ended are under mu; taken signals that the client has
// received output or left.
type session struct {
	id       string
	name     *string
	argv     []string
	created  time.Time
	child    *child
	terminal *terminal

	mu     sync.Mutex
	taken  sync.Cond
	shown  ring
	client *attachment
	ended  *wire.Exited
}

func startSession(r *reaper, id string, request wire.SessionOpen, launch launch) (*session, error) {
	terminal, err := openTerminal(request.Terminal.Size, launch.account)
	if err != nil {
		return nil, wire.Errorf(wire.Unavailable, "no terminal for the session: %v", err)
	}
	slave := uintptr(terminal.slave)
	child, err := r.start(launch.path, request.Argv, &syscall.ProcAttr{
		Dir: launch.directory, Env: launch.env, Files: []uintptr{slave, slave, slave},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true, Credential: launch.account.credential()},
	})
	if err != nil {
		terminal.close()
		return nil, launch.explain(err)
	}
	s := &session{
		id: id, name: request.Name, argv: shortened(request.Argv), created: time.Now(), child: child, terminal: terminal,
	}
	s.taken.L = &s.mu
	return s, nil
}

// shortened truncates a command for display.
func shortened(argv []string) []string {
	short, left := []string{}, argvBytesShown
	for _, argument := range argv {
		if left <= 0 {
			return append(short, "…")
		}
		if len(argument) > left {
			argument = argument[:left]
			for len(argument) > 0 && argument[len(argument)-1]&0xc0 != 0 && argument[len(argument)-1] >= 0x80 {
				argument = argument[:len(argument)-1]
			}
			argument += "…"
		}
		left -= len(argument) + 1
		short = append(short, argument)
	}
	return short
}

func (s *session) isEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended != nil
}

func (s *session) isAttached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client != nil
}

func (s *session) describe() wire.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	described := wire.Session{
		SessionName: s.called(), Pid: s.child.pid, State: wire.StateRunning,
		Attached: s.client != nil, CreatedUnixMs: s.created.UnixMilli(),
	}
	if s.ended != nil {
		described.State = wire.StateEnded
		described.ExitCode, described.Signal = &s.ended.ExitCode, s.ended.Signal
	}
	return described
}

func (s *session) called() wire.SessionName {
	return wire.SessionName{ID: s.id, Name: s.name, Argv: s.argv}
}

// show reads the terminal until its command has ended.
func (s *session) show() {
	go func() {
		<-s.child.exited
		s.terminal.closeSlave()
		_ = s.terminal.master.SetReadDeadline(time.Now())
	}()
	raw, err := s.terminal.master.SyscallConn()
	for err == nil {
		s.awaitRoom()
		n := 0
		err = raw.Read(func(fd uintptr) bool {
			var again bool
			n, again = s.showSome(int(fd))
			return !again
		})
		if n == 0 {
			break
		}
	}
	<-s.child.exited
	s.showRest()
	s.terminal.close()
	ended := exitedAs(s.child.status)
	s.mu.Lock()
	s.ended = &ended
	if s.client != nil {
		s.client.wake()
	}
	s.mu.Unlock()
}

// showRest takes the output that the terminal held when its leader ended, and no more: a background process may
// still be writing.
func (s *session) showRest() {
	raw, err := s.terminal.master.SyscallConn()
	for left := terminalBytesMax; left > 0 && err == nil; {
		s.awaitRoom()
		n := 0
		err = raw.Control(func(fd uintptr) { n, _ = s.showSome(int(fd)) })
		if n == 0 {
			return
		}
		left -= n
	}
}

// showSome moves at most one chunk of available output; again means that there is none yet.
func (s *session) showSome(fd int) (n int, again bool) {
	buffer := chunks.Get().(*[dataRoom + chunkBytes]byte)
	defer chunks.Put(buffer)
	n, err := syscall.Read(fd, buffer[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(fd, buffer[:])
	}
	if n <= 0 {
		return 0, err == syscall.EAGAIN
	}
	s.mu.Lock()
	s.shown.append(buffer[:n])
	if s.client != nil {
		s.client.wake()
	}
	s.mu.Unlock()
	return n, false
}

// backlogBytesMax is how far an attached client may lag before the command has to wait. It is small, so that the
// output of an interrupted command stops soon on the screen.
const backlogBytesMax = 65536

// awaitRoom waits for the client. Without a client there is always room.
func (s *session) awaitRoom() {
	s.mu.Lock()
	for s.client != nil && s.shown.total-s.client.position > backlogBytesMax {
		s.taken.Wait()
	}
	s.mu.Unlock()
}
