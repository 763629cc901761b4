// The first moments of a clone that has its identity: programs that were held in its template run on, and then the
// hooks of /etc/bhatti/clone.d give the new identity to them.

package main

import (
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	cloneHooks      = "/etc/bhatti/clone.d"
	cloneHooksMax   = 32
	hookDeadline    = 10 * time.Second
	allHooksBudget  = 30 * time.Second
	hookOutputBytes = 4096
	hookUser        = "root"
	hookOutputWait  = 100 * time.Millisecond
	// nobody is the machine id of templates, and of clones that wait for an owner.
	nobody = "00000000000000000000000000000000"
)

// hooks says where the hooks of clones are, and who runs them. Tests have others.
type hooks struct{ folder, user string }

// cloning is what a clone still has to do. It is under the agent's mu.
type cloning struct {
	held     []string // control groups
	identity wire.Personalise
}

func (a *agent) hold() error {
	a.mu.Lock()
	hasInit := a.init != nil
	a.mu.Unlock()
	if hasInit {
		return errors.New("beside an init the agent would hold itself")
	}
	groups, err := a.machine.hold()
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.clone.held = append(a.clone.held, groups...)
	a.mu.Unlock()
	return nil
}

// isCopyFor tells whether programs have run in this memory as another machine than the one that it becomes. Needs mu.
func (a *agent) isCopyFor(machineID string) bool {
	before := a.clone.identity.MachineID
	return before != "" && before != machineID && (before != nobody || len(a.clone.held) > 0)
}

// isPending tells whether clone_start has anything to do. Needs mu.
func (a *agent) isPending() bool {
	return len(a.clone.held) > 0 || syscall.Access(a.hooks.folder, 0) == nil
}

func (a *agent) cloneStart(s *stream, _ []byte) {
	a.mu.Lock()
	held, identity := a.clone.held, a.clone.identity
	a.clone.held = nil
	a.mu.Unlock()
	paths := hooksIn(a.hooks.folder)
	if len(paths) == 0 {
		// The programs have much to do when they run again, and the answer is what the host waits for.
		s.succeed(wire.CloneStarted{Hooks: []wire.HookFailure{}})
	}
	err := releasePrograms(held)
	switch {
	case err != nil && len(paths) == 0:
		report("let the programs run on: %v", err)
	case err != nil:
		s.fail(wire.Errorf(wire.Internal, "let the programs run on: %v", err))
	case len(paths) > 0:
		go func() { s.succeed(wire.CloneStarted{Hooks: a.runHooks(paths, identity)}) }()
	}
}

// runHooks runs the hooks in the order of their names, one after the other. It returns those that failed.
func (a *agent) runHooks(paths []string, identity wire.Personalise) []wire.HookFailure {
	failures := []wire.HookFailure{}
	end := time.Now().Add(allHooksBudget)
	for _, path := range paths {
		budget := time.Until(end)
		if budget > hookDeadline {
			budget = hookDeadline
		}
		if failure, hasFailed := a.runHook(path, identity, budget); hasFailed {
			report("%s: %s", path, failure.Reason)
			failures = append(failures, failure)
		}
	}
	return failures
}

// hooksIn lists the executable files of a folder, as run-parts does: names with other signs are left out.
func hooksIn(folder string) []string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var paths []string
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		about, err := os.Stat(path)
		if err == nil && isHookName(entry.Name()) && about.Mode().IsRegular() && about.Mode()&0o111 != 0 {
			paths = append(paths, path)
		}
	}
	sort.Strings(paths)
	return paths[:minimum(len(paths), cloneHooksMax)]
}

func isHookName(name string) bool {
	for _, c := range []byte(name) {
		isWord := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
		if !isWord {
			return false
		}
	}
	return true
}

func (a *agent) runHook(path string, identity wire.Personalise, budget time.Duration) (wire.HookFailure, bool) {
	failed := func(reason string, output []byte) (wire.HookFailure, bool) {
		return wire.HookFailure{Hook: filepath.Base(path), Reason: reason, Output: strings.ToValidUTF8(string(output), "?")}, true
	}
	if budget <= 0 {
		return failed("the hooks before it have taken all of the time", nil)
	}
	launch, err := prepareLaunch(wire.Exec{
		Argv: []string{path}, Cwd: "/", User: a.hooks.user, Env: map[string]string{
			"BHATTI_HOSTNAME": identity.Hostname, "BHATTI_MACHINE_ID": identity.MachineID,
			"BHATTI_ADDRESS": addressOf(identity.Network),
		},
	}, identity.Env)
	if err != nil {
		return failed(err.Error(), nil)
	}
	child, output, err := a.startHook(launch)
	if err != nil {
		return failed(err.Error(), nil)
	}
	late := time.NewTimer(budget)
	defer late.Stop()
	isLate := false
	select {
	case <-child.exited:
	case <-late.C:
		isLate = true
		child.killSession()
		<-child.exited
	}
	switch status := child.status; {
	case isLate:
		return failed("it did not end in "+budget.Round(time.Millisecond).String(), output.taken())
	case status.Signaled():
		return failed("it was ended by SIG"+signalName(status.Signal()), output.taken())
	case status.ExitStatus() != 0:
		return failed("it exited with "+strconv.Itoa(status.ExitStatus()), output.taken())
	}
	return wire.HookFailure{}, false
}

// hookOutput keeps the end of what a hook prints. Its pipe is read until the last background child has closed it.
type hookOutput struct {
	mu   sync.Mutex
	tail []byte
	read chan struct{} // closed at the end of the pipe
}

func (a *agent) startHook(launch launch) (*child, *hookOutput, error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	defer syscall.Close(ends[1])
	ours := pollable(ends[0], "hook")
	input, err := nullFile()
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	child, err := a.reaper.start(launch.path, []string{launch.path}, &syscall.ProcAttr{
		Dir: launch.directory, Env: launch.env, Files: []uintptr{uintptr(input), uintptr(ends[1]), uintptr(ends[1])},
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: launch.account.credential()},
	})
	if err != nil {
		ours.Close()
		return nil, nil, launch.explain(err)
	}
	output := &hookOutput{read: make(chan struct{})}
	go output.fill(ours)
	return child, output, nil
}

func (o *hookOutput) fill(pipe *os.File) {
	defer close(o.read)
	defer pipe.Close()
	chunk := make([]byte, hookOutputBytes)
	for {
		n, err := pipe.Read(chunk)
		o.mu.Lock()
		o.tail = append(o.tail, chunk[:n]...)
		if cut := len(o.tail) - hookOutputBytes; cut > 0 {
			o.tail = append([]byte(nil), o.tail[cut:]...)
		}
		o.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// taken returns the end of the output. A background child that holds the pipe is not waited for.
func (o *hookOutput) taken() []byte {
	select {
	case <-o.read:
	case <-time.After(hookOutputWait):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail
}

func addressOf(network *wire.Network) string {
	if network == nil {
		return ""
	}
	return network.Address
}
