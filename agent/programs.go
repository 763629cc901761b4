// Examines all programs of the guest: which threads wait with a timeout, and which processes are servers.
//
// The scan runs when the host is about to pause an idle guest: some hundred threads at a few system calls each. A
// thread that ends meanwhile is left out.

package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// programs is one scan. now has a wake-up count of each thread whose waits do not show their length; earlier has
// the counts of the scan before.
type programs struct {
	root      string
	self      int
	at        time.Time
	now       map[int]wakeUps
	earlier   map[int]wakeUps
	isServer  map[int]bool
	listeners map[string]listeners
	buffer    []byte
}

// wakeUps is the number of voluntary sleeps of a thread at that time.
type wakeUps struct {
	count int64
	at    time.Time
}

// wakeUpThreadsMax limits the threads remembered from one scan to the next.
const wakeUpThreadsMax = 4096

func newPrograms(root string, self int, earlier map[int]wakeUps) *programs {
	return &programs{
		root: root, self: self, at: time.Now(), now: map[int]wakeUps{}, earlier: earlier,
		isServer: map[int]bool{}, listeners: map[string]listeners{}, buffer: make([]byte, 4096),
	}
}

// waits are all waits of threads with a timeout that the scan sees within the time.
func (p *programs) waits(until time.Time) []wait {
	var found []wait
	for _, process := range p.numbers(p.root) {
		found = append(found, p.waitsOf(process, until)...)
	}
	return found
}

func (p *programs) waitsOf(process int, until time.Time) []wait {
	var found []wait
	tasks := fmt.Sprintf("%s/%d/task", p.root, process)
	for _, thread := range p.numbers(tasks) {
		if time.Now().After(until) {
			break
		}
		t, isTimed := timeoutOf(p.read(fmt.Sprintf("%s/%d/syscall", tasks, thread)))
		if !isTimed {
			continue
		}
		if atMost, isKnown := t.duration(p.memoryOf(process), clockNow); isKnown {
			counts := process != p.self && !p.isPoll(tasks, thread, t, atMost) && !p.serves(process)
			found = append(found, wait{atMost, counts})
		}
	}
	return found
}

// isPoll reports whether the thread only polls from time to time. A wait until a time of the clock does not show
// its length; it counts as a poll if the thread has woken more than once a second since the last scan.
func (p *programs) isPoll(tasks string, thread int, t timeout, atMost time.Duration) bool {
	if t.form != untilSpec {
		isGoMonitor := atMost == goMonitorWait && t.isFutex
		return atMost < pollMax || isGoMonitor
	}
	if atMost >= pollMax || len(p.now) >= wakeUpThreadsMax {
		return false
	}
	count := wakeUpsIn(p.read(fmt.Sprintf("%s/%d/status", tasks, thread)))
	p.now[thread] = wakeUps{count, p.at}
	before, isSeen := p.earlier[thread]
	return isSeen && time.Duration(count-before.count)*pollMax > p.at.Sub(before.at)
}

func wakeUpsIn(status string) int64 {
	const name = "\nvoluntary_ctxt_switches:"
	_, after, _ := strings.Cut(status, name)
	value, _, _ := strings.Cut(after, "\n")
	count, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return count
}

// serves reports whether connections come to the process, or to its parent, whose work it then shares. For a parent
// only TCP counts: terminal multiplexers and supervisors listen at unix sockets and run any program.
func (p *programs) serves(process int) bool {
	is, isKnown := p.isServer[process]
	if !isKnown {
		is = p.listens(process, true)
		if parent := parentIn(p.read(fmt.Sprintf("%s/%d/stat", p.root, process))); !is && parent > 1 {
			is = p.listens(parent, false)
		}
		p.isServer[process] = is
	}
	return is
}

func (p *programs) listens(process int, countsUnix bool) bool {
	directory := fmt.Sprintf("%s/%d", p.root, process)
	var of *listeners
	for _, fd := range p.numbers(directory + "/fd") {
		inode, isSocket := inodeOf(p.link(fmt.Sprintf("%s/fd/%d", directory, fd)))
		if !isSocket {
			continue
		}
		if of == nil {
			found := p.listenersOf(directory)
			of = &found
		}
		if of.tcp[inode] || countsUnix && of.unix[inode] {
			return true
		}
	}
	return false
}

// listenersOf returns the listeners of the process's network: a container has its own network.
func (p *programs) listenersOf(directory string) listeners {
	network := p.link(directory + "/ns/net")
	found, isKnown := p.listeners[network]
	if !isKnown {
		found = readListeners(directory + "/net")
		p.listeners[network] = found
	}
	return found
}

// timerfds are the timers that are file descriptors, by the same rule as waits.
func (p *programs) timerfds() []time.Duration {
	var found []time.Duration
	for _, process := range p.numbers(p.root) {
		directory := fmt.Sprintf("%s/%d", p.root, process)
		for _, fd := range p.numbers(directory + "/fd") {
			if p.link(fmt.Sprintf("%s/fd/%d", directory, fd)) != "anon_inode:[timerfd]" {
				continue
			}
			left, interval, isArmed := timerfdIn(p.read(fmt.Sprintf("%s/fdinfo/%d", directory, fd)))
			isPoll := interval > 0 && interval < pollMax
			if isArmed && !isPoll && process != p.self && !p.serves(process) {
				found = append(found, left)
			}
		}
	}
	return found
}

// timerfdIn reads /proc/PID/fdinfo/FD: the remaining time and the interval, each as (seconds, nanoseconds).
func timerfdIn(text string) (left, interval time.Duration, isArmed bool) {
	for _, line := range strings.Split(text, "\n") {
		var seconds, part int64
		if n, _ := fmt.Sscanf(line, "it_value: (%d, %d)", &seconds, &part); n == 2 {
			left = time.Duration(seconds)*time.Second + time.Duration(part)
		}
		if n, _ := fmt.Sscanf(line, "it_interval: (%d, %d)", &seconds, &part); n == 2 {
			interval = time.Duration(seconds)*time.Second + time.Duration(part)
		}
	}
	return left, interval, left > 0
}

func parentIn(stat string) int {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

func (p *programs) memoryOf(process int) func(uint64, []byte) bool {
	return func(address uint64, into []byte) bool {
		if address > math.MaxInt64 {
			return false
		}
		fd, err := syscall.Open(fmt.Sprintf("%s/%d/mem", p.root, process), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		defer syscall.Close(fd)
		n, err := syscall.Pread(fd, into, int64(address))
		return err == nil && n == len(into)
	}
}

// numbers returns the numeric entries of a directory: processes, threads, file descriptors.
func (p *programs) numbers(directory string) []int {
	opened, err := os.Open(directory)
	if err != nil {
		return nil
	}
	defer opened.Close()
	names, _ := opened.Readdirnames(-1)
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		if number, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// read returns the beginning of a small file, empty if there is none. It makes the kernel generate no more than
// that.
func (p *programs) read(path string) string {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	n, err := syscall.Read(fd, p.buffer)
	if err != nil {
		return ""
	}
	return string(bytes.TrimRight(p.buffer[:n], "\n"))
}

func (p *programs) link(path string) string {
	n, err := syscall.Readlink(path, p.buffer)
	if err != nil {
		return ""
	}
	return string(p.buffer[:n])
}
