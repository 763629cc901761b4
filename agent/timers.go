// Finds when the guest's next program wants to run again.
//
// The rule: a wait counts if it lasts a second or more and its program is not a server. A server or a child of one
// resumes when a client connects, and that wakes the guest. A wait of less than a second is a poll.
//
// The kernel's list of timers has due times but no owners; a thread's system call tells how it waits and how long
// at most (waits.go). The two are matched by length.

package main

import (
	"io"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"bhatti/agent/wire"
)

const (
	// timerListBytesMax limits the bytes read from the list: about ten thousand timers.
	timerListBytesMax = 2 << 20
	// pollMax: a wait shorter than this is a poll.
	pollMax = time.Second
	// scanBudget is half of the host's timeout for the answer.
	scanBudget = time.Second
	// timerTolerance is how long a scan of all programs may take between a wait and the list.
	timerTolerance = 100 * time.Millisecond
)

// timers are those of programs, by the way they are set: the remaining time of each.
type timers struct {
	// waits end the system calls of threads: sleep, poll, select, epoll, futex.
	waits []time.Duration
	// signals are sent to a process: alarm, setitimer, timer_create.
	signals []time.Duration
	// hasTimerfd: some timer is a file descriptor, which reports its own due time.
	hasTimerfd bool
}

func (a *agent) nextTimer(s *stream, _ []byte) {
	go func() {
		a.lookingForTimers.Lock()
		defer a.lookingForTimers.Unlock()
		programs := newPrograms("/proc", os.Getpid(), a.wakeUps)
		waits := programs.waits(time.Now().Add(scanBudget))
		a.wakeUps = programs.now
		list, err := readTimerList()
		if err != nil {
			s.fail(asError(err))
			return
		}
		dues := append(dueWaits(waits, list.waits), list.signals...)
		if list.hasTimerfd {
			dues = append(dues, programs.timerfds()...)
		}
		answer := wire.NextTimer{}
		if len(dues) > 0 {
			sort.Slice(dues, func(i, j int) bool { return dues[i] < dues[j] })
			ms := dues[0].Milliseconds()
			answer.DueMs = &ms
		}
		s.succeed(answer)
	}()
}

// dueWaits returns the timers of the waits that count. Each wait takes the longest timer that it can have set: no
// timer has more left than its wait lasts, and a longer timer left over belongs to a thread that the scan missed.
func dueWaits(waits []wait, left []time.Duration) []time.Duration {
	sort.Slice(waits, func(i, j int) bool { return waits[i].atMost > waits[j].atMost })
	sort.Slice(left, func(i, j int) bool { return left[i] > left[j] })
	var due []time.Duration
	for _, wait := range waits {
		for len(left) > 0 && left[0]-timerTolerance > wait.atMost {
			left = left[1:]
		}
		if len(left) == 0 {
			break
		}
		if wait.counts {
			due = append(due, left[0])
		}
		left = left[1:]
	}
	return due
}

func readTimerList() (timers, error) {
	list, err := os.Open("/proc/timer_list")
	if err != nil {
		return timers{}, err
	}
	defer list.Close()
	text, err := io.ReadAll(io.LimitReader(list, timerListBytesMax))
	return parseTimerList(string(text)), err
}

// parseTimerList reads the remaining time of each timer of a program; 0 if it is already due. For each of the kernel's
// clocks the list has its offset from the monotonic clock, and its timers in two lines each:
//
//	.offset:     1700000000 nsecs
//	 #0: <0000000040ab3397>, hrtimer_wakeup, S:01
//	 # expires at 65584507667-65584557667 nsecs [in 58933242373 to 58933292373 nsecs]
//
// The kernel computes the value in brackets as if every clock were the monotonic one.
func parseTimerList(list string) timers {
	offset, function := int64(0), ""
	var found timers
	for list != "" {
		var line string
		line, list, _ = strings.Cut(list, "\n")
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 2 && fields[0] == ".offset:":
			offset, _ = strconv.ParseInt(fields[1], 10, 64)
		case len(fields) >= 4 && strings.HasPrefix(fields[1], "<"):
			function = strings.TrimSuffix(fields[2], ",")
		case len(fields) >= 7 && fields[1] == "expires":
			left, isTimer := parseLeft(fields, offset)
			switch {
			case !isTimer:
			case function == "hrtimer_wakeup":
				found.waits = append(found.waits, left)
			case function == "posix_timer_fn" || function == "it_real_fn":
				found.signals = append(found.signals, left)
			case function == "timerfd_tmrproc":
				found.hasTimerfd = true
			}
			function = ""
		}
	}
	return found
}

func parseLeft(fields []string, offset int64) (time.Duration, bool) {
	left, err := strconv.ParseInt(strings.TrimPrefix(fields[5], "[in"), 10, 64)
	if err != nil {
		left, err = strconv.ParseInt(fields[6], 10, 64)
	}
	if err != nil || left == math.MaxInt64 {
		return 0, false
	}
	if left -= offset; left < 0 {
		left = 0
	}
	return time.Duration(left), true
}
