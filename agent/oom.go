// Kills by the guest's kernel for lack of memory: read from its log, and each told to the host.
//
// The kernel counts a kill before it sends the signal and logs it afterwards, so the count of /proc/vmstat says whether
// a record is still to come. Only records of the kernel itself count; a program may write others into the log.

package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	kernelLogPath = "/dev/kmsg"
	// memoryKillsKept limits the kills that are remembered for processes whose end is still to be seen.
	memoryKillsKept = 64
	// memoryKillDeadline is how long a counted kill may take to be logged.
	memoryKillDeadline = time.Second
	// kernelRecordBytes is above the length of any record.
	kernelRecordBytes = 16 << 10
)

// memoryKills remembers the kernel's kills. read counts those that were read or given up.
type memoryKills struct {
	counted func() (int, bool)
	tell    func(wire.MemoryKill)

	mu      sync.Mutex
	read    int
	kept    []memoryKill
	changed chan struct{} // closed by the next record
}

type memoryKill struct {
	wire.MemoryKill
	at time.Time
}

func newMemoryKills(counted func() (int, bool), tell func(wire.MemoryKill)) *memoryKills {
	k := &memoryKills{counted: counted, tell: tell, changed: make(chan struct{})}
	k.read, _ = counted()
	return k
}

// watchMemoryKills reads the kernel's log from now on. Without a log nothing is ever known to be killed for memory.
func watchMemoryKills(tell func(wire.MemoryKill)) (*memoryKills, error) {
	fd, err := syscall.Open(kernelLogPath, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open "+kernelLogPath, err)
	}
	const end = 2
	if _, err := syscall.Seek(fd, 0, end); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("seek in "+kernelLogPath, err)
	}
	k := newMemoryKills(countedKills, tell)
	go k.follow(os.NewFile(uintptr(fd), kernelLogPath))
	return k, nil
}

// countedKills reads the kernel's count of kills for memory since the boot.
func countedKills() (int, bool) {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0, false
	}
	return countOfKills(string(text))
}

func countOfKills(vmstat string) (int, bool) {
	for _, line := range strings.Split(vmstat, "\n") {
		if name, count, _ := strings.Cut(line, " "); name == "oom_kill" {
			number, err := strconv.Atoi(count)
			return number, err == nil
		}
	}
	return 0, false
}

func (k *memoryKills) follow(log *os.File) {
	defer log.Close()
	raw, err := log.SyscallConn()
	buffer := make([]byte, kernelRecordBytes)
	for isOpen := true; isOpen && err == nil; {
		err = raw.Read(func(fd uintptr) bool {
			n, err := syscall.Read(int(fd), buffer)
			switch {
			case err == syscall.EAGAIN:
				return false
			case err == syscall.EINTR, err == syscall.EPIPE: // EPIPE: records were overwritten before they were read.
			case err != nil || n <= 0:
				isOpen = false
			case bytes.Contains(buffer[:n], killWords):
				k.record(string(buffer[:n]))
			}
			return true
		})
	}
}

// killWords are in each record of a kill. Most records are about something else, and a wake may bring one, as of a late
// timer: reading it with killRecord would make an emulated machine translate all of its code.
var killWords = []byte("Killed process")

// killRecord matches the kernel's words since version 4.19. A process's name may hold any characters.
var killRecord = regexp.MustCompile(`^(Memory cgroup out|Out) of memory(?: \(.*\))?: Killed process ([0-9]+) \((.*)\)` +
	`,? total-vm:[0-9]+kB, anon-rss:([0-9]+)kB, file-rss:([0-9]+)kB, shmem-rss:([0-9]+)kB`)

// parseKill reads a record of the log: "priority,sequence,time,flags;text". The facility, in the upper bits of the
// priority, is 0 only in the kernel's own records.
func parseKill(record string) (wire.MemoryKill, bool) {
	head, text, _ := strings.Cut(record, ";")
	priority, _, _ := strings.Cut(head, ",")
	number, err := strconv.Atoi(priority)
	if err != nil || number>>3 != 0 {
		return wire.MemoryKill{}, false
	}
	found := killRecord.FindStringSubmatch(text)
	if found == nil {
		return wire.MemoryKill{}, false
	}
	var numbers [4]int
	for i, text := range []string{found[2], found[4], found[5], found[6]} {
		if numbers[i], err = strconv.Atoi(text); err != nil {
			return wire.MemoryKill{}, false
		}
	}
	return wire.MemoryKill{
		Pid: numbers[0], Name: found[3], InCgroup: found[1] != "Out",
		AnonKib: numbers[1], FileKib: numbers[2], ShmemKib: numbers[3],
	}, true
}

func (k *memoryKills) record(text string) {
	kill, isKill := parseKill(text)
	if !isKill {
		return
	}
	now := time.Now()
	kill.UnixMs, kill.MemoryKib = now.UnixMilli(), memoryTotalKib()
	// The killed process is still there, as a zombie at least, unless its parent was quicker.
	if stat, err := os.ReadFile("/proc/" + strconv.Itoa(kill.Pid) + "/stat"); err == nil {
		_, _, kill.Session = parseStat(string(stat))
	}
	counted, isKnown := k.counted()
	k.mu.Lock()
	// A record that was given up for lost must not stand for the next one.
	if !isKnown || k.read < counted {
		k.read++
	}
	k.kept = append(k.kept, memoryKill{kill, now})
	if len(k.kept) > memoryKillsKept {
		k.kept = k.kept[1:]
	}
	close(k.changed)
	k.changed = make(chan struct{})
	k.mu.Unlock()
	k.tell(kill)
}

// inSession returns the kernel's kills in the session of a leader that runs since then, the leader's own first, and
// at most sessionKillsMax. It is nil for a guest without a kernel log.
func (k *memoryKills) inSession(leader int, since time.Time) []wire.MemoryKill {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var own, others []wire.MemoryKill
	for _, kill := range k.kept {
		switch {
		case kill.at.Before(since):
		case kill.Pid == leader:
			own = append(own, kill.MemoryKill)
		case kill.Session == leader:
			others = append(others, kill.MemoryKill)
		}
	}
	all := append(own, others...)
	return all[:minimum(len(all), sessionKillsMax)]
}

// sessionKillsMax limits the kills that the end of one process names.
const sessionKillsMax = 4

// awaitCounted waits until every kill that the kernel has counted is read.
func (k *memoryKills) awaitCounted() {
	if k == nil {
		return
	}
	counted, isKnown := k.counted()
	if !isKnown {
		return
	}
	late := time.NewTimer(memoryKillDeadline)
	defer late.Stop()
	for {
		k.mu.Lock()
		isRead, changed := k.read >= counted, k.changed
		k.mu.Unlock()
		if isRead {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			// Its record is lost. Nobody waits for it again.
			k.mu.Lock()
			if k.read < counted {
				k.read = counted
			}
			k.mu.Unlock()
			return
		}
	}
}

// memoryTotalKib returns the memory that the guest's kernel manages, 0 if it does not tell.
func memoryTotalKib() int {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			total, _ := strconv.Atoi(fields[1])
			return total
		}
	}
	return 0
}
