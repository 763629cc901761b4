// The start of a process: from a request over its files to a running child.

package main

import (
	"os"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

// processTimeMaxMs limits the times in a request: a hundred years.
const processTimeMaxMs = 100 * 366 * 24 * 3600 * 1000

// startProcess starts a process unless its key has started one. The caller lets a new process run.
func (a *agent) startProcess(request wire.ProcessStart, onEnd func(*process)) (p *process, isNew bool, err error) {
	if err := checkStart(&request); err != nil {
		return nil, false, err
	}
	t := &a.processes
	t.sweep()
	t.starting.Lock()
	defer t.starting.Unlock()
	p = newProcess(request)
	p.agent, p.onEnd = a, onEnd
	if p.key != "" {
		earlier, err := t.findKey(p.key, request, p.fingerprint)
		if earlier != nil || err != nil {
			return earlier, false, err
		}
	}
	if len(request.Argv) == 0 {
		if request.Argv, err = loginCommand(request.User); err != nil {
			return nil, false, err
		}
	}
	a.mu.Lock()
	sandboxEnv := a.env
	a.mu.Unlock()
	launch, err := prepareLaunch(request.Exec, sandboxEnv)
	if err != nil {
		return nil, false, err
	}
	hasTerminal := request.Terminal != nil
	if err := t.reserve(p, hasTerminal); err != nil {
		return nil, false, err
	}
	if err := p.launch(a.reaper.start, request, launch); err != nil {
		t.cancel(hasTerminal)
		return nil, false, a.unlessSwitchingOff(err)
	}
	t.add(p)
	if request.TimeoutMs != nil {
		p.mu.Lock()
		p.limit = time.AfterFunc(milliseconds(*request.TimeoutMs), func() { p.kill(wire.EndTimeLimit) })
		p.mu.Unlock()
	}
	return p, true, nil
}

func milliseconds(count int64) time.Duration { return time.Duration(count) * time.Millisecond }

// checkStart refuses values that no process can have, and fills in those that are left out.
func checkStart(request *wire.ProcessStart) error {
	for _, ms := range []int64{request.ElapsedMs, request.GraceMs, request.RetainMs} {
		if ms < 0 || ms > processTimeMaxMs {
			return wire.Errorf(wire.Invalid, "%d milliseconds are no time for a process", ms)
		}
	}
	if request.OnDisconnect == "" {
		request.OnDisconnect = wire.DisconnectKill
	}
	if request.RingBytes == 0 {
		request.RingBytes = ringBytesDefault
	}
	isKept, limit := request.OnDisconnect == wire.DisconnectKeep, request.TimeoutMs
	switch {
	case !isKept && request.OnDisconnect != wire.DisconnectKill:
		return wire.Errorf(wire.Invalid, "on_disconnect is kill or keep, not %q", request.OnDisconnect)
	case !isKept && request.Attach != nil && !*request.Attach:
		return wire.Errorf(wire.Invalid, "a process without a client must be kept (on_disconnect)")
	case request.RingBytes < ringBytesLeast || request.RingBytes > ringBytesMost:
		return wire.Errorf(wire.Invalid, "ring_bytes is %d to %d, not %d", ringBytesLeast, ringBytesMost, request.RingBytes)
	case limit != nil && (*limit <= 0 || *limit > processTimeMaxMs):
		return wire.Errorf(wire.Invalid, "%d milliseconds are no time limit", *limit)
	case request.Name != nil && !isProcessName(*request.Name):
		return wire.Errorf(wire.Invalid, "%q is not a valid name", *request.Name)
	case request.Key != nil && !isKey(*request.Key):
		return wire.Errorf(wire.Invalid, "the key is not 1 to %d printable characters", keyBytesMax)
	case len(request.Argv) == 0 && request.Terminal == nil:
		return wire.Errorf(wire.Invalid, "argv names no program").Because(wire.BadText)
	}
	return nil
}

func newProcess(request wire.ProcessStart) *process {
	p := &process{
		name: request.Name, created: time.Now(), isKept: request.OnDisconnect == wire.DisconnectKeep,
		grace: milliseconds(request.GraceMs), retain: milliseconds(request.RetainMs), finished: make(chan struct{}),
		allInput: inputCount{endTypedAt: -1},
	}
	if request.Key != nil {
		p.key, p.fingerprint = *request.Key, fingerprintOf(request.Exec)
	}
	return p
}

// fingerprintOf differs for commands that are not the same.
func fingerprintOf(request wire.Exec) uint64 {
	sum := hashed(hashed(hashStart, request.Cwd), request.User)
	for _, text := range request.Argv {
		sum = hashed(sum, text)
	}
	if request.Terminal != nil {
		sum = hashed(sum, "terminal")
	}
	return sum
}

// starter starts a program.
type starter func(path string, argv []string, attributes *syscall.ProcAttr) (*child, error)

// launch opens the process's files and starts its child. It always closes its copies of the child's ends.
func (p *process) launch(start starter, request wire.ProcessStart, launch launch) error {
	p.argv, p.user, p.directory = shortened(request.Argv), launch.account.name, launch.directory
	var theirs [3]int
	var err error
	if request.Terminal != nil {
		theirs, err = p.openTerminal(*request.Terminal, request.Stdin, launch.account)
	} else {
		theirs, err = p.openPipes(request.Stdin, launch.account)
	}
	if err != nil {
		return err
	}
	attributes := &syscall.ProcAttr{
		Dir:   launch.directory,
		Env:   launch.env,
		Files: []uintptr{uintptr(theirs[0]), uintptr(theirs[1]), uintptr(theirs[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: p.terminal != nil, Credential: launch.account.credential()},
	}
	if p.input != nil {
		p.writing = make(chan struct{}, 1)
	}
	p.child, err = start(launch.path, request.Argv, attributes)
	if p.terminal == nil {
		for i, fd := range theirs {
			if i > 0 || request.Stdin {
				syscall.Close(fd)
			}
		}
	}
	if err != nil {
		p.closeFiles()
		return launch.explain(err)
	}
	if p.terminal != nil && !request.Stdin {
		_, _ = p.terminal.master.Write([]byte{endOfInput})
	}
	for _, o := range p.outputs {
		o.ring.budget, o.ring.bytesMax = &p.agent.processes.budget, int(request.RingBytes)
	}
	return nil
}

func (p *process) closeFiles() {
	if p.terminal != nil {
		p.terminal.close()
		return
	}
	for _, o := range p.outputs {
		o.file.Close()
	}
	if p.input != nil {
		p.input.Close()
	}
}

func (p *process) addOutput(channel byte, file *os.File) {
	p.outputs = append(p.outputs, &output{index: len(p.outputs), channel: channel, file: file, wake: make(chan struct{}, 1)})
}

// openPipes returns the child's ends. They belong to its user, who may reopen /dev/stdout.
func (p *process) openPipes(hasInput bool, owner account) (theirs [3]int, err error) {
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
		p.input = pollable(ours[0], "stdin")
	}
	p.addOutput(wire.Stdout, pollable(ours[1], "stdout"))
	p.addOutput(wire.Stderr, pollable(ours[2], "stderr"))
	return theirs, nil
}

var null struct {
	once sync.Once
	fd   int
	err  error
}

// nullFile is opened once, for every process without input.
func nullFile() (int, error) {
	null.once.Do(func() { null.fd, null.err = syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
	return null.fd, null.err
}

func (p *process) openTerminal(wanted wire.Terminal, hasInput bool, owner account) (theirs [3]int, err error) {
	if wanted.Size == (wire.Size{}) {
		wanted.Size = wire.Size{Rows: 24, Cols: 80}
	}
	p.terminal, err = openTerminal(wanted.Size, owner)
	if err != nil {
		return theirs, wire.Errorf(wire.Unavailable, "no terminal for the command: %v", err)
	}
	if hasInput {
		p.input = p.terminal.master
	}
	p.addOutput(wire.Stdout, p.terminal.master)
	return [3]int{p.terminal.slave, p.terminal.slave, p.terminal.slave}, nil
}

// pollable registers a descriptor with the runtime's poller.
func pollable(fd int, name string) *os.File {
	_ = syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

func minimum(a, b int) int {
	if a < b {
		return a
	}
	return b
}
