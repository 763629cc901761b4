// The only place that starts and reaps processes. As PID 1 the agent also reaps every orphan of the guest.
//
// Invariant: a process started here is registered before its end can be noticed, and is reaped under the same lock
// under which it is signalled; so no exit is lost and no signal reaches another process with a reused pid.

package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

type reaper struct {
	mu       sync.Mutex
	started  sync.Cond
	starts   int
	isIdle   bool
	children children
	inside   *inside // nil without an init of the sandbox
	endsAll  int32   // not 0: the machine shuts down; atomic
}

// child is a process that leads its own session and group. status is valid once exited is closed.
type child struct {
	reaper *reaper
	pid    int
	// innerPid is the pid that the sandbox sees.
	innerPid int
	exited   chan struct{}
	status   syscall.WaitStatus
}

// children is a list: it is short, and a map would be more code to run in a machine that wakes.
type children []*child

func (all children) has(c *child) bool {
	for _, one := range all {
		if one == c {
			return true
		}
	}
	return false
}

// take removes and returns the child of a pid; nil if it is none of ours.
func (all *children) take(pid int) *child {
	for i, one := range *all {
		if one.pid == pid {
			last := len(*all) - 1
			(*all)[i], (*all)[last] = (*all)[last], nil
			*all = (*all)[:last]
			return one
		}
	}
	return nil
}

func newReaper() *reaper {
	r := &reaper{}
	r.started.L = &r.mu
	return r
}

// start starts a program beside the init of the sandbox, if one runs.
func (r *reaper) start(path string, argv []string, attributes *syscall.ProcAttr) (*child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fork := syscall.ForkExec
	if r.inside != nil {
		fork = r.inside.start
	}
	pid, err := fork(path, argv, attributes)
	if err != nil {
		return nil, err
	}
	c := r.add(pid)
	if r.inside != nil {
		c.innerPid = innerPidOf(pid)
	}
	return c, nil
}

// startOutside starts a program in the agent's own namespaces.
func (r *reaper) startOutside(path string, argv []string, attributes *syscall.ProcAttr) (*child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attributes)
	if err != nil {
		return nil, err
	}
	return r.add(pid), nil
}

func (r *reaper) setInside(i *inside) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inside = i
}

// add registers a child. It needs mu.
func (r *reaper) add(pid int) *child {
	c := &child{reaper: r, pid: pid, innerPid: pid, exited: make(chan struct{})}
	r.children = append(r.children, c)
	r.starts++
	r.started.Broadcast()
	return c
}

// run waits for children for ever. A blocked waitid costs one thread and, unlike SIGCHLD, no detour through the
// runtime's signal goroutine.
func (r *reaper) run() {
	starts := 0
	for {
		pid, err := peekExited()
		r.mu.Lock()
		if err != nil {
			for r.starts == starts {
				r.isIdle = true
				r.started.Wait()
			}
			r.isIdle = false
			starts = r.starts
			r.mu.Unlock()
			continue
		}
		var status syscall.WaitStatus
		_, err = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		c := r.children.take(pid)
		r.mu.Unlock()
		if c != nil && err == nil {
			c.status = status
			close(c.exited)
		}
	}
}

// awaitIdle waits until no process is left, or until the deadline.
func (r *reaper) awaitIdle(deadline time.Duration) {
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		isIdle := r.isIdle
		r.mu.Unlock()
		if isIdle {
			return
		}
	}
}

// peekExited blocks until a child has ended and leaves it for wait4. It fails if there is no child.
func peekExited() (int, error) {
	const (
		all     = 0
		noWait  = 0x01000000
		exited  = 4
		pidWord = 4 // after si_signo, si_errno, si_code and padding
	)
	var ended [32]int32
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, all, 0, uintptr(unsafe.Pointer(&ended)), exited|noWait, 0, 0)
		switch errno {
		case 0:
			return int(ended[pidWord]), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// signal signals the child's process group. A child that has ended is not an error: it may just have done so.
func (c *child) signal(signal syscall.Signal) {
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	if c.reaper.children.has(c) {
		_ = syscall.Kill(-c.pid, signal)
	}
}

// signalAlone signals the child and no other process.
func (c *child) signalAlone(signal syscall.Signal) {
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	if c.reaper.children.has(c) {
		_ = syscall.Kill(c.pid, signal)
	}
}

// killSession kills the child, its group, and every process of its session.
func (c *child) killSession() {
	const rounds = 8 // A member may fork while we look; a fork bomb is left to the machine's end.
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	if !c.reaper.children.has(c) {
		return
	}
	for round := 0; round < rounds; round++ {
		members := sessionMembers(c.pid)
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
		if len(members) == 0 {
			return
		}
		for _, pid := range members {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// signalSession sends to the child, its group, and every process of its session.
func (c *child) signalSession(signal syscall.Signal) {
	if signal == syscall.SIGKILL {
		c.killSession()
		return
	}
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	if !c.reaper.children.has(c) {
		return
	}
	members := sessionMembers(c.pid)
	_ = syscall.Kill(-c.pid, signal)
	for _, pid := range members {
		_ = syscall.Kill(pid, signal)
	}
}

// sessionMembers lists the living processes of a session that are outside its leader's group.
func sessionMembers(session int) []int {
	directory, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer directory.Close()
	names, err := directory.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var members []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		state, group, of := parseStat(string(stat))
		if of == session && group != session && state != "Z" && state != "X" {
			members = append(members, pid)
		}
	}
	return members
}

// parseStat reads state, process group and session. The command's name before them may contain any bytes.
func parseStat(stat string) (state string, group, session int) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 {
		return "", 0, 0
	}
	group, _ = strconv.Atoi(fields[2])
	session, _ = strconv.Atoi(fields[3])
	return fields[0], group, session
}
