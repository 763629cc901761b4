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
