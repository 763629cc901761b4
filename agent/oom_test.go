// Kills for memory: the kernel's records and nothing else, and the wait for one that is counted and not yet logged.

package main

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

const killText = "Killed process 412 (python3) total-vm:530000kB, anon-rss:421888kB, file-rss:4kB, shmem-rss:8kB, " +
	"UID:1000 pgtables:900kB oom_score_adj:0"

func TestTheKernelsRecordOfAKillIsRead(t *testing.T) {
	want := wire.MemoryKill{Pid: 412, Name: "python3", AnonKib: 421888, FileKib: 4, ShmemKib: 8}
	for record, inCgroup := range map[string]bool{
		"3,1170,90210,-;Out of memory: " + killText + "\n":                                 false,
		"3,1170,90210,-,caller=T412;Out of memory (oom_kill_allocating_task): " + killText: false,
		"3,1170,90210,-;Memory cgroup out of memory: " + killText + "\n SUBSYSTEM=x":       true,
	} {
		want.InCgroup = inCgroup
		if got, isKill := parseKill(record); !isKill || got != want {
			t.Errorf("%q: %+v %v", record, got, isKill)
		}
	}
	odd := "3,1,1,-;Out of memory: Killed process 7 (a) (b: c) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:0"
	if got, _ := parseKill(odd); got.Name != "a) (b: c" || got.AnonKib != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAProgramCannotPretendAKill(t *testing.T) {
	for _, record := range []string{
		"11,1170,90210,-;Out of memory: " + killText, // 11 is a program's priority: facility 1, user.
		"3,1170,90210,-;systemd: Out of memory: " + killText,
		"3,1170,90210,-;Out of memory: Killed process 99999999999999999999 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB",
		"Out of memory: " + killText, "", ";", "3;",
	} {
		if got, isKill := parseKill(record); isKill {
			t.Errorf("%q: %+v", record, got)
		}
	}
}

func TestTheCountOfKills(t *testing.T) {
	if n, isKnown := countOfKills("pgfault 12\noom_kill 3\noom_kill_x 9\n"); n != 3 || !isKnown {
		t.Error(n, isKnown)
	}
	if n, isKnown := countOfKills("pgfault 12\n"); isKnown {
		t.Error(n)
	}
}

// kernelLog is a log whose records the test writes, with the count that goes with it.
type kernelLog struct {
	kills   *memoryKills
	counter int32
	end     int
	told    chan wire.MemoryKill
}

func newKernelLog(t *testing.T) *kernelLog {
	t.Helper()
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &kernelLog{end: ends[0], told: make(chan wire.MemoryKill, 100)}
	l.kills = newMemoryKills(
		func() (int, bool) { return int(atomic.LoadInt32(&l.counter)), true },
		func(kill wire.MemoryKill) { l.told <- kill },
	)
	_ = syscall.SetNonblock(ends[1], true)
	go l.kills.follow(os.NewFile(uintptr(ends[1]), "log"))
	t.Cleanup(func() { syscall.Close(ends[0]) })
	return l
}

func (l *kernelLog) write(t *testing.T, text string) {
	t.Helper()
	if _, err := syscall.Write(l.end, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (l *kernelLog) kill(t *testing.T, pid int) {
	t.Helper()
	l.write(t, fmt.Sprintf("3,1,1,-;Out of memory: Killed process %d (python3) total-vm:9kB, anon-rss:421888kB, "+
		"file-rss:0kB, shmem-rss:0kB, UID:0", pid))
}

const killed = syscall.WaitStatus(syscall.SIGKILL)

func TestAKillThatIsCountedIsWaitedFor(t *testing.T) {
	l, began := newKernelLog(t), time.Now()
	atomic.StoreInt32(&l.counter, 1)
	ends := make(chan wire.Ended)
	go func() { ends <- describeEnd(killed, 412, began, sentSignal{}, l.kills) }()
	l.write(t, "6,1,1,-;something else")
	l.kill(t, 412)
	ended := <-ends
	if ended.Reason != wire.EndOutOfMemory || *ended.By != wire.ByKernel || ended.ExitCode != 137 {
		t.Errorf("%+v", ended)
	}
	if kill := ended.Detail.MemoryKills[0]; kill.Pid != 412 || kill.AnonKib != 421888 || kill.MemoryKib == 0 {
		t.Errorf("%+v", kill)
	}
	if told := <-l.told; told.Pid != 412 {
		t.Errorf("%+v", told)
	}
}

func TestALostRecordDelaysOneEndAndTheNextKillIsStillSeen(t *testing.T) {
	l, began := newKernelLog(t), time.Now()
	atomic.StoreInt32(&l.counter, 1)
	if ended := describeEnd(killed, 412, began, sentSignal{}, l.kills); ended.Reason != wire.EndSignal {
		t.Errorf("%+v", ended)
	}
	if waited := time.Since(began); waited < memoryKillDeadline {
		t.Errorf("waited %s", waited)
	}
	l.kill(t, 7) // The lost one, late.
	<-l.told
	atomic.StoreInt32(&l.counter, 2)
	go l.kill(t, 412)
	if ended := describeEnd(killed, 412, began, sentSignal{}, l.kills); ended.Reason != wire.EndOutOfMemory {
		t.Errorf("%+v", ended)
	}
}

func TestAnEndTellsWhoSentTheSignal(t *testing.T) {
	l, began := newKernelLog(t), time.Now()
	l.kill(t, 400) // Before the processes below began.
	<-l.told
	late := time.Now()
	byClient := sentSignal{number: syscall.SIGTERM, by: "client"}
	byLimit := sentSignal{number: syscall.SIGKILL, by: wire.ByAgent, reason: wire.EndTimeLimit}
	for _, c := range []struct {
		status syscall.WaitStatus
		sent   sentSignal
		since  time.Time
		reason wire.EndReason
		by     string
	}{
		{3 << 8, sentSignal{}, late, wire.EndExited, ""},
		{0, byLimit, late, wire.EndExited, ""},
		{killed, sentSignal{}, late, wire.EndSignal, wire.ByGuest},
		{killed, byClient, late, wire.EndSignal, wire.ByGuest},
		{syscall.WaitStatus(syscall.SIGTERM), byClient, late, wire.EndSignal, "client"},
		{killed, byLimit, late, wire.EndTimeLimit, wire.ByAgent},
		{killed, sentSignal{}, began, wire.EndOutOfMemory, wire.ByKernel},
	} {
		ended := describeEnd(c.status, 400, c.since, c.sent, l.kills)
		by := ""
		if ended.By != nil {
			by = *ended.By
		}
		if ended.Reason != c.reason || by != c.by {
			t.Errorf("%+v: %+v by %q", c, ended, by)
		}
	}
	if ended := describeEnd(killed, 400, began, sentSignal{}, nil); ended.Reason != wire.EndSignal {
		t.Errorf("without a log: %+v", ended)
	}
}

func TestAKillInTheSessionIsTold(t *testing.T) {
	l, began := newKernelLog(t), time.Now()
	// The test's own process stands for one that the kernel killed: it is there, and has a session.
	stat, _ := os.ReadFile("/proc/self/stat")
	_, _, session := parseStat(string(stat))
	l.kill(t, os.Getpid())
	<-l.told
	ended := describeEnd(137<<8, session, began, sentSignal{}, l.kills)
	if ended.Reason != wire.EndExited || ended.Detail == nil || ended.Detail.MemoryKills[0].Pid != os.Getpid() {
		t.Errorf("%+v", ended)
	}
	if ended := describeEnd(0, session, began, sentSignal{}, l.kills); ended.Detail != nil {
		t.Errorf("%+v", ended)
	}
}

func TestAShutdownIsTheSenderOfItsSignals(t *testing.T) {
	h := personalised(t)
	id := h.keep("exec sleep 100", nil)
	pid := int(h.process(id)["pid"].(float64))
	atomic.StoreInt32(&theReaper.endsAll, 1)
	defer atomic.StoreInt32(&theReaper.endsAll, 0)
	_ = syscall.Kill(pid, syscall.SIGTERM)
	if got := endOf(h.wait(id)["ended"]); got != "143 TERM signal shutdown" {
		t.Error(got)
	}
}

func TestAnAbnormalEndIsToldWithItsCause(t *testing.T) {
	h := personalised(t)
	h.keep("kill -9 $$", nil)
	h.keep("exit 3", nil)
	h.keep("sleep 100", map[string]any{"timeout_ms": 50})
	var told []string
	await(t, "both are told", func() bool {
		h.agent.notices.mu.Lock()
		defer h.agent.notices.mu.Unlock()
		told = nil
		for _, notice := range h.agent.notices.waiting {
			told = append(told, string(wire.Encode(notice)))
		}
		return len(told) == 2
	})
	for i, want := range []string{`"reason":"signal","by":"guest"`, `"reason":"time_limit","by":"agent"`} {
		if !strings.Contains(told[i], want) {
			t.Errorf("%s, not %s", told[i], want)
		}
	}
}
