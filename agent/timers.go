// When the next program of the guest's wants to go on by itself, from the kernel's own list of timers.
//
// The list has no owners. Programs wait by few functions of the kernel: sleep, poll, select, epoll, futex and the like by one,
// timerfd, timer_create and setitimer by one each. The kernel's own work uses others, and what this program sets is known
// by its slack.

package main

import (
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"bhatti/agent/wire"
)

// timerListBytesMax bounds what is read of the list: about ten thousand timers.
const timerListBytesMax = 2 << 20

var waitingFunctions = map[string]bool{
	"hrtimer_wakeup": true, "timerfd_tmrproc": true, "posix_timer_fn": true, "it_real_fn": true,
}

func (a *agent) nextTimer(s *stream, _ []byte) {
	list, err := os.Open("/proc/timer_list")
	if err != nil {
		s.fail(asError(err))
		return
	}
	defer list.Close()
	text, err := io.ReadAll(io.LimitReader(list, timerListBytesMax))
	if err != nil {
		s.fail(asError(err))
		return
	}
	answer := wire.NextTimer{}
	if due, isAny := nextUserTimer(string(text)); isAny {
		ms := due.Milliseconds()
		answer.DueMs = &ms
	}
	s.succeed(answer)
}

// nextUserTimer is how long the first timer of a program still has; one that is due already has 0. In the list stand, for each of the
// kernel's clocks, how far it is from the monotonic one, and its timers in two lines each:
//
//	.offset:     1700000000 nsecs
//	 #0: <0000000040ab3397>, hrtimer_wakeup, S:01
//	 # expires at 65584507667-65584557667 nsecs [in 58933242373 to 58933292373 nsecs]
//
// The kernel prints the value in brackets as if every clock were the monotonic one.
func nextUserTimer(list string) (due time.Duration, isAny bool) {
	offset, next, isWaiting := int64(0), int64(math.MaxInt64), false
	for list != "" {
		var line string
		line, list, _ = strings.Cut(list, "\n")
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 2 && fields[0] == ".offset:":
			offset, _ = strconv.ParseInt(fields[1], 10, 64)
		case len(fields) >= 4 && strings.HasPrefix(fields[1], "<"):
			isWaiting = waitingFunctions[strings.TrimSuffix(fields[2], ",")]
		case isWaiting && len(fields) >= 7 && fields[1] == "expires":
			isWaiting = false
			if isOwnTimer(fields[3]) {
				continue
			}
			in, err := strconv.ParseInt(strings.TrimPrefix(fields[5], "[in"), 10, 64)
			if err != nil {
				in, err = strconv.ParseInt(fields[6], 10, 64)
			}
			if err == nil && in-offset < next {
				next = in - offset
			}
		}
	}
	if next < 0 {
		next = 0
	}
	return time.Duration(next), next != math.MaxInt64
}

// isOwnTimer: the range of the timer's expiry is the slack of this program's monitor, which no other has.
func isOwnTimer(expiry string) bool {
	soft, hard, isRange := strings.Cut(expiry, "-")
	from, err := strconv.ParseUint(soft, 10, 64)
	to, otherErr := strconv.ParseUint(hard, 10, 64)
	return isRange && err == nil && otherErr == nil && to-from == monitorSlackNs
}
