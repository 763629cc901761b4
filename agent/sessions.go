// Sessions: commands with a terminal that outlive their client, its connection and the daemon.
//
//	running ── leader exits, the terminal is read empty ──► ended ── killed, or 16 younger ones ended ──► forgotten
//	   │
//	   └── detached ◄── attach, take-over, detach, lost connection ──► one attachment
//
// Lock order: sessions.mu, session.mu, stream.mu.

package main

import (
	"strconv"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	sessionsRunningMax = 32
	sessionsEndedMax   = 16
	sessionNameMax     = 63
	// argvBytesShown keeps a list of sessions within one frame.
	argvBytesShown = 2048
)

type sessions struct {
	mu   sync.Mutex
	next int
	all  []*session // oldest first
}

// add starts a session unless there are too many, or its name is taken.
func (l *sessions) add(name *string, start func(id string) (*session, error)) (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	running := 0
	for _, s := range l.all {
		if s.isEnded() {
			continue
		}
		running++
		if name != nil && s.name != nil && *s.name == *name {
			return nil, wire.Errorf(wire.Conflict, "a session named %q is running", *name)
		}
	}
	if running >= sessionsRunningMax {
		return nil, wire.Errorf(wire.LimitExceeded, "%d sessions are running, which is the limit", running)
	}
	s, err := start("s" + strconv.Itoa(l.next+1))
	if err != nil {
		return nil, err
	}
	l.next++
	l.all = append(l.all, s)
	return s, nil
}

// find returns the session of an id or name, a running one before an ended one.
func (l *sessions) find(wanted string) (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found *session
	for _, s := range l.all {
		if s.id == wanted {
			return s, nil
		}
		if s.name != nil && *s.name == wanted && (found == nil || found.isEnded()) {
			found = s
		}
	}
	if found == nil {
		return nil, wire.Errorf(wire.NotFound, "no session %q", wanted)
	}
	return found, nil
}

func (l *sessions) newestDetached() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.all) - 1; i >= 0; i-- {
		if s := l.all[i]; !s.isEnded() && !s.isAttached() {
			return s, nil
		}
	}
	return nil, wire.Errorf(wire.NotFound, "there is no detached session")
}

func (l *sessions) forget(forgotten *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.all {
		if s == forgotten {
			l.all = append(l.all[:i], l.all[i+1:]...)
			return
		}
	}
}

// prune removes the oldest ended sessions above the limit.
func (l *sessions) prune() {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended := 0
	for _, s := range l.all {
		if s.isEnded() {
			ended++
		}
	}
	kept := l.all[:0]
	for _, s := range l.all {
		if ended > sessionsEndedMax && s.isEnded() {
			ended--
			continue
		}
		kept = append(kept, s)
	}
	for i := len(kept); i < len(l.all); i++ {
		l.all[i] = nil
	}
	l.all = kept
}

func (l *sessions) list() []wire.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]wire.Session, 0, len(l.all))
	for _, s := range l.all {
		list = append(list, s.describe())
	}
	return list
}

func (a *agent) sessionOpen(s *stream, payload []byte) {
	var request wire.SessionOpen
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	opened, err := a.openSession(request)
	if err != nil {
		s.fail(asError(err))
		return
	}
	if request.Attach != nil && !*request.Attach {
		s.succeed(wire.SessionOpened{Session: opened.id})
		return
	}
	opened.attach(s, nil)
}

func (a *agent) openSession(request wire.SessionOpen) (*session, error) {
	if request.Name != nil && !isSessionName(*request.Name) {
		return nil, wire.Errorf(wire.Invalid, "%q is not a valid session name", *request.Name)
	}
	if request.Terminal == nil {
		request.Terminal = &wire.Terminal{Size: wire.Size{Rows: 24, Cols: 80}}
	}
	if len(request.Argv) == 0 {
		shell, err := loginShell(request.User)
		if err != nil {
			return nil, err
		}
		request.Argv = []string{shell, "-l"}
	}
	a.mu.Lock()
	sandboxEnv := a.env
	a.mu.Unlock()
	launch, err := prepareLaunch(request.Exec, sandboxEnv)
	if err != nil {
		return nil, err
	}
	return a.sessions.add(request.Name, func(id string) (*session, error) {
		s, err := startSession(a.reaper, id, request, launch)
		if err == nil {
			go func() {
				s.show()
				if notice, isNamed := noticeOf(s); isNamed {
					a.notices.tell(notice)
				}
				a.sessions.prune()
			}()
		}
		return s, err
	})
}

func loginShell(user string) (string, error) {
	if user == "" {
		user = userDefault
	}
	who, err := findAccount("/etc", user)
	return who.shell, err
}

// isSessionName refuses names that could be an id.
func isSessionName(name string) bool {
	if name == "" || len(name) > sessionNameMax {
		return false
	}
	isID := name[0] == 's' && len(name) > 1
	for i, c := range []byte(name) {
		isLetter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		isDigit := c >= '0' && c <= '9'
		if !isLetter && (i == 0 || !isDigit && c != '.' && c != '_' && c != '-') {
			return false
		}
		isID = isID && (i == 0 || isDigit)
	}
	return !isID
}

func (a *agent) sessionAttach(s *stream, payload []byte) {
	var request wire.SessionAttach
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	find := a.sessions.newestDetached
	if request.Session != "" {
		find = func() (*session, error) { return a.sessions.find(request.Session) }
	}
	found, err := find()
	if err != nil {
		s.fail(asError(err))
		return
	}
	found.attach(s, request.Size)
}

func (a *agent) sessionList(s *stream, _ []byte) {
	s.succeed(wire.Sessions{Sessions: a.sessions.list()})
}

func (a *agent) sessionKill(s *stream, payload []byte) {
	var request wire.SessionKill
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	number, isKnown := signalNumbers[request.Signal]
	if request.Signal == "" {
		number, isKnown = syscall.SIGKILL, true
	}
	if !isKnown {
		s.fail(wire.Errorf(wire.Invalid, "no signal %q", request.Signal))
		return
	}
	found, err := a.sessions.find(request.Session)
	if err != nil {
		s.fail(asError(err))
		return
	}
	if found.isEnded() {
		a.sessions.forget(found)
	} else {
		found.child.signalSession(number)
	}
	s.succeed(wire.Empty{})
}

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
