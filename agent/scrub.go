// Overwrites free memory with zeros, so that a saved copy of this guest contains no freed data and takes less room.
//
// A kernel with init_on_free=1 does this by itself. A guest that has booted from its disk has a kernel without it: at
// its start such a kernel writes to all of its memory. There a process takes free pages, which the kernel zeroes
// before it hands them out, and holds them until it has enough. The kernel hands out the last freed pages first, so
// those that were never used, which take no memory on the host, stay untouched.
//
// The process is the first that the kernel would end for lack of memory, so no program of a user is ended for it.

package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	scrubName   = "scrub"
	scrubBudget = 2 * time.Second
	// scrubGrace is for the start and the end of the process.
	scrubGrace = time.Second
	// scrubLeastKib: less is not worth a process.
	scrubLeastKib = 16 << 10
	// scrubSpareKib stays free for programs that want memory meanwhile.
	scrubSpareKib = 16 << 10
	scrubChunkKib = 4 << 10
	pageKib       = 4
	killedFirst   = "1000"

	adviseNoHugePage    = 15
	advisePopulateWrite = 23
)

// scrubber remembers how many pages had been freed since the boot when it last ran.
type scrubber struct {
	reaper *reaper
	mu     sync.Mutex
	freed  int
}

func (a *agent) scrub(untouchedMib *int) {
	if untouchedMib == nil {
		return
	}
	if err := a.machine.scrub(*untouchedMib); err != nil {
		report("%v", err)
	}
}

// scrub overwrites free memory but leaves as much of it alone as was never touched.
func (s *scrubber) scrub(untouchedMib int) error {
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil || hasArgument(string(arguments), "init_on_free=1") {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keepKib := untouchedMib << 10
	if keepKib < scrubSpareKib {
		keepKib = scrubSpareKib
	}
	freed := counter("/proc/vmstat", "pgfree")
	if counter("/proc/meminfo", "MemFree:")-keepKib < scrubLeastKib || (freed-s.freed)*pageKib < scrubLeastKib {
		return nil
	}
	c, err := s.reaper.startOutside("/proc/self/exe", []string{scrubName, strconv.Itoa(keepKib)},
		&syscall.ProcAttr{Dir: "/", Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return os.NewSyscallError("start the scrub of free memory", err)
	}
	late := time.AfterFunc(scrubBudget+scrubGrace, c.killSession)
	defer late.Stop()
	<-c.exited
	s.freed = counter("/proc/vmstat", "pgfree")
	return nil
}

// runScrub is the process. It takes free memory until only keepKib of it are left, or the time is over.
func runScrub(args []string) int {
	end := time.Now().Add(scrubBudget)
	keepKib := 0
	if len(args) == 1 {
		keepKib, _ = strconv.Atoi(args[0])
	}
	if keepKib < scrubSpareKib || os.WriteFile("/proc/self/oom_score_adj", []byte(killedFirst), 0) != nil {
		return 1
	}
	for time.Now().Before(end) && counter("/proc/meminfo", "MemFree:")-keepKib >= scrubChunkKib {
		chunk, err := syscall.Mmap(-1, 0, scrubChunkKib<<10, syscall.PROT_READ|syscall.PROT_WRITE,
			syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS)
		// Large pages would leave the smaller free ranges between pages in use as they are.
		if err != nil || syscall.Madvise(chunk, adviseNoHugePage) != nil ||
			syscall.Madvise(chunk, advisePopulateWrite) != nil {
			return 1
		}
	}
	return 0
}

// counter reads a number from a file of the kernel with a name and a number in each line; 0 if it is not there.
func counter(path, name string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == name {
			value, _ := strconv.Atoi(fields[1])
			return value
		}
	}
	return 0
}
