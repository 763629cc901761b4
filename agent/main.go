// Lohar is the guest's first process and the host's hand inside: it boots the machine, then serves the host over
// the channel that protocol/PROTOCOL.md describes.

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"unsafe"

	"bhatti/agent/wire"
)

// version is set by the build.
var version = "dev"

// heapBytesGoal is far above the memory that the limits of the protocol let this program need.
const heapBytesGoal = 128 << 20

func main() {
	if os.Args[0] == initStubName {
		os.Exit(runInitStub(os.Args[1:]))
	}
	if name := filepath.Base(os.Args[0]); os.Getpid() != 1 && powerCommands[name] != 0 {
		os.Exit(runPowerCommand(name, os.Args[1:]))
	}
	if os.Getpid() != 1 && os.Args[0] == scrubName {
		os.Exit(runScrub(os.Args[1:]))
	}
	if os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "lohar %s is the first process of a sandbox and does nothing elsewhere\n", version)
		os.Exit(2)
	}
	defer func() {
		if reason := recover(); reason != nil {
			report("crashed: %v\n%s", reason, debug.Stack())
			switchOff()
		}
	}()
	if err := live(); err != nil {
		report("cannot go on: %v", err)
	}
	switchOff()
}

// live boots and serves until the channel fails.
func live() error {
	occupyStandardFiles()
	outliveSignals()
	dropChildSignals()
	debug.SetMemoryLimit(heapBytesGoal)
	failures, err := boot(bootSteps)
	if err != nil {
		return err
	}
	port, err := openChannel()
	if err != nil {
		return err
	}
	p, unprepared := prepare("/")
	for _, err := range unprepared {
		failures = append(failures, fmt.Sprintf("prepare: %v", err))
		report("prepare: %v", err)
	}
	a := newAgent(failures, p)
	if a.shared, err = openShared(pciDevices); err != nil {
		a.bootFailures = append(a.bootFailures, fmt.Sprintf("shared memory: %v", err))
		report("shared memory: %v", err)
	}
	a.kills, err = watchMemoryKills(func(kill wire.MemoryKill) { a.notices.tell(wire.MemoryNotice{MemoryKill: kill}) })
	if err != nil {
		a.bootFailures = append(a.bootFailures, fmt.Sprintf("kernel log: %v", err))
		report("kernel log: %v", err)
	}
	go a.reaper.run()
	go servePowerCommands(a.reaper, func() error {
		a.services.stopAll()
		a.endInit()
		return p.store()
	})
	report("%s is up", version)
	return a.serve(port)
}

// dropChildSignals restores the kernel's default for SIGCHLD, which sends none: the reaper waits in the kernel, and
// the runtime's handler would only run for nothing at the end of every process. Ignoring the signal would make the
// kernel reap the children itself.
func dropChildSignals() {
	byDefault := [4]uint64{}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD),
		uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
}

func newAgent(bootFailures []string, p *prepared) *agent {
	r := newReaper()
	return &agent{
		version: version, bootFailures: bootFailures, reaper: r,
		hooks: hooks{folder: cloneHooks, user: hookUser},
		machine: machine{
			personalise: p.personalise,
			renewBootID: func() error { return renewBootID("/") },
			refresh:     p.refresh,
			store:       p.store,
			trim:        trimRoot,
			hold:        func() ([]string, error) { return holdPrograms(controlGroups) },
			scrub:       (&scrubber{reaper: r}).scrub,
			end: func(command int) {
				if err := p.store(); err != nil {
					report("%v", err)
				}
				endMachine(r, command)
			},
		},
	}
}

// outliveSignals receives and drops the signals that a user of the guest may send to process 1; by default the
// runtime would exit, which would panic the kernel. Every command would inherit ignored signals.
func outliveSignals() {
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGPROF, syscall.SIGPIPE,
		syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGSYS, syscall.SIGTRAP, syscall.SIGPWR, syscall.SIGIO,
		syscall.SIGSTKFLT)
	go func() {
		for range received {
		}
	}()
}
