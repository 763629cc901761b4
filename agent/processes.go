// The table of processes: ids, names, keys, limits, and when a process is forgotten.

package main

import (
	"strconv"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	processesRunningMax = 256
	terminalsRunningMax = 32
	processesEndedMax   = 1024
	forgottenKeysMax    = 16384
	nameBytesMax        = 63
	keyBytesMax         = 128
	outputBudgetMax     = 64 << 20
)

// processes is the table. Its zero value is ready.
type processes struct {
	// starting is held from the check of a name and a key until the process is in the table.
	starting sync.Mutex
	budget   budget

	mu        sync.Mutex
	sessions  int        // the number in the newest id of a session
	others    int        // the same of other processes
	all       []*process // oldest first
	over      []*process // those that have ended, first to end first
	running   int
	terminals int
	forgotten keyMemory
	// isFirstBoot: no earlier boot of this sandbox can have run a command.
	isFirstBoot bool
}

// booted is when this program started, which is when the guest booted.
var booted = time.Now()

// keyMemory remembers the newest keys of forgotten processes by their hashes.
type keyMemory struct {
	hashes []uint64
	next   int
	known  map[uint64]bool
}

// hashStart and hashed are FNV-1a, whose code is short, with the end of each text. A guest can only deceive itself.
const hashStart = 0xcbf29ce484222325

func hashed(sum uint64, text string) uint64 {
	const prime = 0x100000001b3
	for i := 0; i < len(text); i++ {
		sum = (sum ^ uint64(text[i])) * prime
	}
	return (sum ^ 0x100) * prime
}

func (m *keyMemory) add(key string) {
	hash := hashed(hashStart, key)
	if m.known == nil {
		m.known = map[uint64]bool{}
	}
	if len(m.hashes) < forgottenKeysMax {
		m.hashes = append(m.hashes, hash)
	} else {
		delete(m.known, m.hashes[m.next])
		m.hashes[m.next] = hash
		m.next = (m.next + 1) % forgottenKeysMax
	}
	m.known[hash] = true
}

func (m *keyMemory) has(key string) bool { return len(m.hashes) > 0 && m.known[hashed(hashStart, key)] }

// outputBudget is the memory for output in a machine of this size.
func outputBudget() int64 {
	var about syscall.Sysinfo_t
	if syscall.Sysinfo(&about) != nil {
		return outputBudgetMax
	}
	if eighth := int64(about.Totalram) * int64(about.Unit) / 8; eighth < outputBudgetMax {
		return eighth
	}
	return outputBudgetMax
}

// reserve counts a process that is about to start and gives it an id, unless there are too many or its name is taken.
func (t *processes) reserve(p *process, hasTerminal bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.budget.max == 0 {
		t.budget.max = outputBudget()
	}
	if t.running >= processesRunningMax {
		return wire.Errorf(wire.LimitExceeded, "%d processes are running, which is the limit", t.running)
	}
	if hasTerminal && t.terminals >= terminalsRunningMax {
		return wire.Errorf(wire.LimitExceeded, "%d processes with a terminal are running, which is the limit", t.terminals)
	}
	for _, other := range t.all {
		if p.name != nil && other.name != nil && *other.name == *p.name && !other.hasEnded() {
			return wire.Errorf(wire.Conflict, "%q is running already (%s)", *p.name, other.id)
		}
	}
	t.running++
	if hasTerminal {
		t.terminals++
	}
	if hasTerminal && p.isKept && !p.isInit {
		p.id = "s" + strconv.Itoa(t.sessions+1)
	} else {
		p.id = "p" + strconv.Itoa(t.others+1)
	}
	return nil
}

// cancel takes back a reservation.
func (t *processes) cancel(hasTerminal bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(hasTerminal)
}

func (t *processes) release(hasTerminal bool) {
	t.running--
	if hasTerminal {
		t.terminals--
	}
}

func (t *processes) add(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.isSession() {
		t.sessions++
	} else {
		t.others++
	}
	t.all = append(t.all, p)
}

// ended counts a process that runs no more, and forgets the first that ended if there are too many.
func (t *processes) ended(p *process) {
	t.mu.Lock()
	t.release(p.terminal != nil)
	t.over = append(t.over, p)
	var oldest *process
	if len(t.over) > processesEndedMax {
		oldest = t.over[0]
	}
	t.mu.Unlock()
	if oldest != nil {
		t.forget(oldest)
	}
}

// forgetLater has the first request after that time forget a process.
func (t *processes) forgetLater(p *process, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.forgetAt = at
}

// sweep forgets the processes whose time is over. Requests that look at the table call it.
func (t *processes) sweep() {
	now := time.Now()
	var due []*process
	t.mu.Lock()
	for _, p := range t.over {
		if !p.forgetAt.IsZero() && now.After(p.forgetAt) {
			due = append(due, p)
		}
	}
	t.mu.Unlock()
	for _, p := range due {
		t.forget(p)
	}
}

// forget removes an ended process. Its clients still get what it has written.
func (t *processes) forget(p *process) {
	t.mu.Lock()
	var isThere bool
	t.all, isThere = without(t.all, p)
	t.over, _ = without(t.over, p)
	if isThere && p.key != "" {
		t.forgotten.add(p.key)
	}
	t.mu.Unlock()
	p.mu.Lock()
	p.isForgotten = true
	if p.retaining != nil {
		p.retaining.Stop()
	}
	p.mu.Unlock()
	p.releaseOutput()
}

func without(list []*process, p *process) ([]*process, bool) {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == p {
			copy(list[i:], list[i+1:])
			list[len(list)-1] = nil
			return list[:len(list)-1], true
		}
	}
	return list, false
}

// reclaim drops the output of the process that ended first and still has any, unless a driver has yet to read it.
func (t *processes) reclaim() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.over {
		freed := 0
		p.mu.Lock()
		if p.driver == nil && !p.isInGrace {
			freed = p.dropOutput()
		}
		p.mu.Unlock()
		if freed > 0 {
			return
		}
	}
}

// find returns the process of an id or name, a running one before an ended one.
func (t *processes) find(wanted string) (*process, error) {
	t.sweep()
	t.mu.Lock()
	defer t.mu.Unlock()
	var found *process
	for _, p := range t.all {
		if p.id == wanted {
			return p, nil
		}
		if p.name != nil && *p.name == wanted && (found == nil || found.hasEnded()) {
			found = p
		}
	}
	if found == nil {
		return nil, wire.Errorf(wire.NotFound, "no process %q", wanted)
	}
	return found, nil
}

// findKey returns the process that was started with a key; nil if none was and one can be started.
func (t *processes) findKey(key string, request wire.ProcessStart, fingerprint uint64) (*process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// The newest one is asked for most often.
	for i := len(t.all) - 1; i >= 0; i-- {
		switch p := t.all[i]; {
		case p.key != key:
		case p.fingerprint != fingerprint:
			return nil, wire.Errorf(wire.Conflict, "the key belongs to another command (%s)", p.id).Because(wire.KeyReused)
		default:
			return p, nil
		}
	}
	if t.forgotten.has(key) {
		return nil, wire.Errorf(wire.Conflict, "the command of this key has ended and is forgotten").Because(wire.Forgotten)
	}
	elapsed, from := milliseconds(request.ElapsedMs), request.From
	hasBooted := elapsed > 0 && !t.isFirstBoot && time.Since(booted) < elapsed+time.Second
	if hasBooted || from != nil && (from.Stdout > 0 || from.Stderr > 0) {
		return nil, wire.Errorf(wire.Conflict, "the guest has booted since the command was sent first, so it may have run").
			Because(wire.Rebooted)
	}
	return nil, nil
}

// beFirstBoot notes that no earlier boot of this sandbox can have run a command.
func (t *processes) beFirstBoot(isFirst bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isFirstBoot = t.isFirstBoot || isFirst
	if isFirst && len(t.all) == 0 {
		t.sessions, t.others = 0, 0 // A template used these ids for itself.
	}
}

// list returns the processes, oldest first.
func (t *processes) list() []*process {
	t.sweep()
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*process(nil), t.all...)
}

// isProcessName refuses names that could be an id.
func isProcessName(name string) bool {
	if name == "" || len(name) > nameBytesMax {
		return false
	}
	isID := (name[0] == 's' || name[0] == 'p') && len(name) > 1
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

func isKey(key string) bool {
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return key != "" && len(key) <= keyBytesMax
}
