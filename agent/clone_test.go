// The first moments of a clone: programs stand still until they may run on, and hooks run in order and in time.

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

// ownGroup makes a control group of the test's own.
func ownGroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "cgroup2" {
			continue
		}
		group := filepath.Join(fields[1], "bhatti-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			await(t, "the group is empty", func() bool {
				_ = syscall.Rmdir(filepath.Join(group, heldGroup))
				_ = syscall.Rmdir(filepath.Join(group, "other"))
				return syscall.Rmdir(group) == nil
			})
		})
		if _, err := os.Stat(filepath.Join(group, "cgroup.freeze")); err == nil {
			return group
		}
	}
	t.Skip("this machine has no control groups of version 2 that a test can use")
	return ""
}

func TestEveryProgramStandsStillUntilItIsReleasedAndNoticesNothing(t *testing.T) {
	root := ownGroup(t)
	other := filepath.Join(root, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	counters := map[string]string{}
	for _, group := range []string{root, other} {
		counter := filepath.Join(t.TempDir(), "counter")
		counters[group] = counter
		// A child that leaves its parent's session, as a server does.
		program := exec.Command("sh", "-c", "read go; setsid sh -c 'while :; do echo >> "+counter+"; sleep 0.001; done' & wait")
		start, err := program.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := program.Start(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(program.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		_ = start.Close()
		t.Cleanup(func() {
			_ = os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
			_ = os.WriteFile(filepath.Join(root, heldGroup, "cgroup.kill"), []byte("1"), 0)
			_ = program.Wait()
		})
	}
	size := func(group string) int64 {
		about, err := os.Stat(counters[group])
		if err != nil {
			return 0
		}
		return about.Size()
	}
	await(t, "both run", func() bool { return size(root) > 0 && size(other) > 0 })
	groups, err := holdPrograms(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != 2 {
		t.Fatalf("held %v", groups)
	}
	before := []int64{size(root), size(other)}
	time.Sleep(30 * time.Millisecond) // The time in which they would run, if they did.
	if after := []int64{size(root), size(other)}; fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("they went on from %v to %v", before, after)
	}
	if err := releasePrograms(groups); err != nil {
		t.Fatal(err)
	}
	await(t, "both go on", func() bool { return size(root) > before[0] && size(other) > before[1] })
}

func hookFolder(t *testing.T, scripts map[string]string) hooks {
	t.Helper()
	folder := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return hooks{folder: folder, user: ownName}
}

func TestHooksRunInOrderWithTheNewIdentityAndTellWhatFailed(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	h := connect(t)
	h.agent.hooks = hookFolder(t, map[string]string{
		"20-second":  `echo "second $SANDBOX" >> ` + told,
		"10-first":   `echo "first $BHATTI_HOSTNAME $BHATTI_MACHINE_ID" >> ` + told,
		"30-fails":   "echo why it fails; sleep 60 & exit 3",
		"readme.txt": "echo never >> " + told,
	})
	if err := os.WriteFile(filepath.Join(h.agent.hooks.folder, "40-no-program"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	held := false
	h.agent.machine.hold = func() ([]string, error) { held = true; return nil, nil }
	if answer := h.ask("quiesce", map[string]any{"hold": true}); answer.Error != nil || !held {
		t.Fatalf("%v, held: %v", answer.Error, held)
	}
	h.greet()
	answer := h.end(h.open(`{"op":"personalise","entropy":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","unix_ns":"1",` +
		`"hostname":"dev","machine_id":"0123456789abcdef0123456789abcdef","env":{"SANDBOX":"yes"},"network":null,"grow_disk":false}`))
	if answer.Error != nil || answer.OK["pending"] != true {
		t.Fatalf("%v %v", answer.OK, answer.Error)
	}
	started := h.ask("clone_start", map[string]any{})
	if started.Error != nil {
		t.Fatal(started.Error)
	}
	want := `[map[hook:30-fails output:why it fails` + "\n" + ` reason:it exited with 3]]`
	if got := fmt.Sprint(started.OK["failed_hooks"]); got != want {
		t.Errorf("%s", got)
	}
	text, _ := os.ReadFile(told)
	if want := "first dev 0123456789abcdef0123456789abcdef\nsecond yes\n"; string(text) != want {
		t.Errorf("%s", text)
	}
}

func TestAHookThatHangsIsKilledWithAllThatItHasStarted(t *testing.T) {
	a := testAgent()
	a.hooks = hookFolder(t, map[string]string{"hangs": "echo begun; sleep 1000"})
	failure, hasFailed := a.runHook(filepath.Join(a.hooks.folder, "hangs"), wire.Personalise{}, 50*time.Millisecond)
	if !hasFailed || failure.Reason != "it did not end in 50ms" {
		t.Errorf("%+v", failure)
	}
}

func TestACloneWithoutHooksAndHeldProgramsIsReadyAtOnce(t *testing.T) {
	h := connect(t)
	h.agent.hooks = hooks{folder: filepath.Join(t.TempDir(), "none"), user: ownName}
	answer := h.end(h.open(`{"op":"personalise","entropy":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","unix_ns":"1",` +
		`"hostname":"dev","machine_id":"0123456789abcdef0123456789abcdef","env":{},"network":null,"grow_disk":false}`))
	if fmt.Sprint(answer.OK) != "map[boot_id:test]" {
		t.Errorf("%v %v", answer.OK, answer.Error)
	}
}
