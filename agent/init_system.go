// The init of a sandbox: systemd, sysvinit, busybox or another, which an image has as its entry point. The agent stays
// the machine's first process and starts the init as the first one of namespaces of its own, as a container manager
// does (systemd's "Container Interface").
//
//	agent: pid, mount and cgroup namespaces of the machine; files, watches, the network, the channel
//	  └─ init: its own pid, mount and cgroup namespaces; same root filesystem, network and host name
//	       └─ all that is started from then on: commands, shells, services, hooks
//
// Mounts propagate both ways but for /proc, /sys and /dev, so that the agent sees the files that programs see. The
// end of the init ends the machine.

package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	initName = "init-system"
	// initGroup is the control group that is delegated to the init, and besideInit the one below it for the programs
	// that the agent starts.
	initGroup  = controlGroups + "/bhatti.init"
	besideInit = initGroup + "/bhatti.exec"

	initStartDeadline = 10 * time.Second
	initEndDeadline   = 40 * time.Second
	cloneNewCgroup    = 0x02000000
)

// initPaths are where images have their init, in the order of the search. The last one is that of s6-overlay.
var initPaths = []string{"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/bin/init", "/init"}

// delegatedControllers are those that an init may share out among its programs.
var delegatedControllers = []string{"+cpu", "+cpuset", "+io", "+memory", "+pids"}

func (a *agent) initStart(s *stream, _ []byte) {
	go func() {
		p, err := a.startInit()
		if err != nil {
			s.fail(asError(err))
			return
		}
		s.succeed(wire.InitStarted{Process: p.id, Path: p.argv[0]})
	}()
}

func (a *agent) startInit() (*process, error) {
	a.initStarting.Lock()
	defer a.initStarting.Unlock()
	if a.init != nil {
		return nil, wire.Errorf(wire.Conflict, "the init has been started already")
	}
	path, err := findInit()
	if err != nil {
		return nil, err
	}
	if err := makeInitGroups(); err != nil {
		return nil, wire.Errorf(wire.Internal, "control groups for %s: %v", path, err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, ""); err != nil {
		return nil, wire.Errorf(wire.Internal, "share the mounts with %s: %v", path, err)
	}
	unlinkPowerCommands("/")
	told, tells, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer told.Close()
	p, err := a.launchInit(path, tells)
	tells.Close()
	if err != nil {
		return nil, err
	}
	p.run()
	// The pipe closes when the stub has become the init.
	_ = told.SetReadDeadline(time.Now().Add(initStartDeadline))
	words, err := io.ReadAll(told)
	if err == nil && len(words) == 0 {
		var i *inside
		if i, err = a.enterInit(p); err == nil {
			a.reaper.setInside(i)
			a.mu.Lock()
			a.init = p
			a.mu.Unlock()
			return p, nil
		}
	}
	if err != nil {
		words = []byte(err.Error())
	}
	p.kill(wire.EndSignal)
	_ = linkPowerCommands("/")
	return nil, wire.Errorf(wire.Invalid, "%s cannot be started: %s", path, words).Because(wire.NotStarted)
}

// enterInit lets further programs start beside the init.
func (a *agent) enterInit(p *process) (*inside, error) {
	i, err := enter(p.child.pid)
	if err != nil {
		return nil, err
	}
	own := strconv.Itoa(os.Getpid())
	return i, os.WriteFile(besideInit+"/cgroup.procs", []byte(own), 0)
}

func findInit() (string, error) {
	for _, path := range initPaths {
		if checkProgram(path, path) == nil {
			return path, nil
		}
	}
	return "", wire.Errorf(wire.NotFound, "the image has no init: none of %v is a program", initPaths).
		Because(wire.NoProgram)
}

// makeInitGroups makes the groups anew at each boot.
func makeInitGroups() error {
	for _, controller := range delegatedControllers {
		// A kernel may lack one.
		_ = os.WriteFile(controlGroups+"/cgroup.subtree_control", []byte(controller), 0)
	}
	return os.MkdirAll(besideInit, 0o755)
}

// launchInit starts the stub of init_stub.go with a terminal as its console. tells becomes its descriptor 3.
func (a *agent) launchInit(path string, tells *os.File) (*process, error) {
	size := wire.Size{Rows: 24, Cols: 80}
	name := initName
	request := wire.ProcessStart{
		Exec: wire.Exec{
			Argv: []string{path}, Cwd: "/", User: hookUser, Env: map[string]string{"container": "bhatti"},
			Terminal: &wire.Terminal{Size: size}, Stdin: true,
		},
		Name: &name, OnDisconnect: wire.DisconnectKeep, RetainMs: processTimeMaxMs, RingBytes: ringBytesDefault,
	}
	a.mu.Lock()
	sandboxEnv := a.env
	a.mu.Unlock()
	launch, err := prepareLaunch(request.Exec, sandboxEnv)
	if err != nil {
		return nil, err
	}
	p := newProcess(request)
	p.agent, p.isInit, p.onEnd = a, true, a.onInitEnd
	t := &a.processes
	t.starting.Lock()
	defer t.starting.Unlock()
	if err := t.reserve(p, true); err != nil {
		return nil, err
	}
	start := func(path string, argv []string, attributes *syscall.ProcAttr) (*child, error) {
		attributes.Files = append(attributes.Files, tells.Fd())
		attributes.Sys.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
		c, err := a.reaper.startOutside("/proc/self/exe", append([]string{initStubName}, argv...), attributes)
		if err == nil {
			c.innerPid = 1
		}
		return c, err
	}
	if err := p.launch(start, request, launch); err != nil {
		t.cancel(true)
		return nil, err
	}
	t.add(p)
	return p, nil
}

// onInitEnd ends the machine. The kernel has ended everything in the init's namespaces by then, and tells by a signal
// which end the init has asked for.
func (a *agent) onInitEnd(p *process) {
	a.initStarting.Lock()
	isUp := a.isInit(p)
	a.initStarting.Unlock()
	if !isUp {
		return
	}
	command := syscall.LINUX_REBOOT_CMD_POWER_OFF
	if p.child.status.Signaled() && p.child.status.Signal() == syscall.SIGHUP {
		command = syscall.LINUX_REBOOT_CMD_RESTART
	}
	a.mu.Lock()
	isWanted := a.isEndingInit
	a.mu.Unlock()
	if isWanted {
		return // The one who ends it ends the machine.
	}
	if !p.endedInOrder() {
		report("%s%s", initEndWords, initEndText(p))
	}
	a.services.stopAll()
	a.machine.end(command)
}

// isInit: the process is the init and was started well.
func (a *agent) isInit(p *process) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.init == p
}

// unlessSwitchingOff replaces the kernel's word on a start beside an init that has ended, which is that there is no
// memory. The machine ends in a moment.
func (a *agent) unlessSwitchingOff(err error) error {
	a.mu.Lock()
	init := a.init
	a.mu.Unlock()
	if init == nil || !init.hasExited() {
		return err
	}
	return wire.Errorf(wire.Unavailable, "the sandbox is switching off: its init has ended")
}

// initEndWords must equal the ones in src/machine/guest-end.ts.
const initEndWords = "the init of the sandbox ended: "

func initEndText(p *process) string {
	if p.ended.Reason == wire.EndOutOfMemory {
		return "killed for lack of memory"
	}
	if p.ended.Signal != nil {
		return "SIG" + *p.ended.Signal
	}
	return "exit code " + strconv.Itoa(p.ended.ExitCode)
}

// endedInOrder: the init has asked the kernel for a power off or a restart, or was asked to end.
func (p *process) endedInOrder() bool {
	p.agent.mu.Lock()
	isWanted := p.agent.isEndingInit
	p.agent.mu.Unlock()
	p.mu.Lock()
	isSent := p.sent.number != 0
	p.mu.Unlock()
	status := p.child.status
	return isWanted || status.Signaled() && !isSent &&
		(status.Signal() == syscall.SIGHUP || status.Signal() == syscall.SIGINT)
}

// endInit has the init end all that it has started. It returns when the init has ended, and does nothing without one.
func (a *agent) endInit() {
	a.mu.Lock()
	p := a.init
	a.isEndingInit = true
	a.mu.Unlock()
	if p == nil || p.hasExited() {
		return
	}
	p.endWithin(initEndDeadline, func() { a.askInitToEnd(p) })
}

// endWithin kills the process unless it ends in time once asked. The request may block too, as a program of the image
// does that waits for something.
func (p *process) endWithin(deadline time.Duration, ask func()) {
	late := time.NewTimer(deadline)
	defer late.Stop()
	go ask()
	select {
	case <-p.child.exited:
	case <-late.C:
		report("%s did not end in %v and is killed", p.argv[0], deadline)
		p.child.signalAlone(syscall.SIGKILL)
		<-p.child.exited
	}
}

// askInitToEnd sends systemd the signal that it documents. Others have a command for it; one without is terminated.
func (a *agent) askInitToEnd(p *process) {
	if target, err := filepath.EvalSymlinks(p.argv[0]); err == nil && filepath.Base(target) == "systemd" {
		p.child.signalAlone(signalHalt)
		return
	}
	launch, err := prepareLaunch(wire.Exec{Argv: []string{"poweroff"}, Cwd: "/", User: hookUser}, nil)
	if err == nil {
		var c *child
		c, _, err = a.startHook(launch)
		if err == nil {
			<-c.exited
			if c.status.Exited() && c.status.ExitStatus() == 0 || p.hasExited() {
				return
			}
		}
	}
	p.child.signalAlone(syscall.SIGTERM)
}
