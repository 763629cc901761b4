// Timers of programs are told from the kernel's and from this program's.

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// timerList is how the kernel writes it; the middle of each line is what a test fills in.
func timerList(realtime string, monotonic string) string {
	return `Timer List Version: v0.9
HRTIMER_MAX_CLOCK_BASES: 8
now at 6651265294 nsecs

cpu: 0
 clock 0:
  .base:       0000000055aa
  .index:      0
  .resolution: 1 nsecs
  .get_time:   ktime_get
  .offset:     0 nsecs
active timers:
 #0: <000000009bb8ed43>, tick_sched_timer, S:01
 # expires at 6660000000-6660000000 nsecs [in 8734706 to 8734706 nsecs]
 #1: <000000008b897699>, watchdog_timer_fn, S:01
 # expires at 8764926918-8764926918 nsecs [in 2113661624 to 2113661624 nsecs]
` + monotonic + ` clock 1:
  .base:       0000000055ab
  .index:      1
  .resolution: 1 nsecs
  .get_time:   ktime_get_real
  .offset:     1796007000000000000 nsecs
active timers:
` + realtime + `  .expires_next   : 6660000000 nsecs
`
}

func timer(function string, in, slack int64) string {
	return fmt.Sprintf(" #2: <0000000040ab3397>, %s, S:01\n # expires at %d-%d nsecs [in %d to %d nsecs]\n",
		function, 6651265294+in, 6651265294+in+slack, in, in+slack)
}

func TestTheNextTimerOfAProgram(t *testing.T) {
	const slack = 50000
	second := int64(time.Second)
	cases := map[string]struct {
		list string
		want time.Duration
		none bool
	}{
		"only the kernel's":           {list: timerList("", ""), none: true},
		"this program's":              {list: timerList("", timer("hrtimer_wakeup", 59*second, monitorSlackNs)), none: true},
		"a sleep":                     {list: timerList("", timer("hrtimer_wakeup", 20*second, slack)), want: 20 * time.Second},
		"a timerfd":                   {list: timerList("", timer("timerfd_tmrproc", 3*second, 0)), want: 3 * time.Second},
		"timer_create":                {list: timerList("", timer("posix_timer_fn", 4*second, 0)), want: 4 * time.Second},
		"setitimer":                   {list: timerList("", timer("it_real_fn", 5*second, 0)), want: 5 * time.Second},
		"on the clock of the day":     {list: timerList(timer("hrtimer_wakeup", 1796007000000000000+7*second, slack), ""), want: 7 * time.Second},
		"due already":                 {list: timerList("", timer("hrtimer_wakeup", -500, slack)), want: 0},
		"the first of several counts": {list: timerList("", timer("hrtimer_wakeup", 9*second, slack)+timer("it_real_fn", 2*second, 0)), want: 2 * time.Second},
		"cut off":                     {list: strings.SplitAfter(timerList("", timer("hrtimer_wakeup", 9*second, slack)), "hrtimer_wakeup")[0], none: true},
		"nothing":                     {list: "", none: true},
		"something else":              {list: strings.Repeat("# < expires [in x\n", 10), none: true},
	}
	for name, c := range cases {
		due, isAny := nextUserTimer(c.list)
		if isAny == c.none || isAny && due != c.want {
			t.Errorf("%s: %v %v", name, due, isAny)
		}
	}
}
