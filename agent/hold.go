// Holds the programs of a template still, so that not one instruction of them runs in a clone before the clone is
// itself: with random numbers, a clock, a name and an address of its own.
//
// The kernel's control groups do it. A held program sees nothing of it but the time that has passed; a signal would
// be seen by its parent.

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	controlGroups = "/sys/fs/cgroup"
	// heldGroup gets the programs of the root group, which cannot be held itself. They stay in it afterwards, since
	// moving a program takes the kernel milliseconds.
	heldGroup = "bhatti.programs"
	// moveRounds bounds how often programs are looked for that were started meanwhile.
	moveRounds   = 50
	holdDeadline = 5 * time.Second
	kernelParent = 2
)

// holdPrograms stops every program but the agent, and returns the groups to release.
func holdPrograms(root string) (groups []string, err error) {
	own := filepath.Join(root, heldGroup)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := moveAll(root, own); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = releasePrograms(groups)
		}
	}()
	for _, entry := range entries {
		group := filepath.Join(root, entry.Name())
		state, err := os.ReadFile(filepath.Join(group, "cgroup.freeze"))
		if err != nil || strings.TrimSpace(string(state)) != "0" {
			continue
		}
		groups = append(groups, group)
		if err := setHeld(group, "1"); err != nil {
			return groups, err
		}
	}
	for _, group := range groups {
		if err := awaitHeld(group); err != nil {
			return groups, err
		}
	}
	return groups, nil
}

func releasePrograms(groups []string) error {
	var failure error
	for _, group := range groups {
		if err := setHeld(group, "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			failure = err
		}
	}
	return failure
}

func setHeld(group, state string) error {
	file, err := os.OpenFile(filepath.Join(group, "cgroup.freeze"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteString(state)
	return err
}

func awaitHeld(group string) error {
	for end := time.Now().Add(holdDeadline); ; time.Sleep(time.Millisecond) {
		state, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
		if err != nil {
			return err
		}
		if strings.Contains(string(state), "frozen 1") {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the programs of %s did not stand still in %v", group, holdDeadline)
		}
	}
}

// moveAll moves every program of a group but the agent and the kernel's threads, until no further one appears.
func moveAll(from, to string) error {
	for round := 0; round < moveRounds; round++ {
		list, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
		if err != nil {
			return err
		}
		moved := 0
		for _, word := range strings.Fields(string(list)) {
			pid, err := strconv.Atoi(word)
			if err != nil || pid == os.Getpid() || isOfKernel(pid) {
				continue
			}
			err = os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(word), 0)
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
			moved++
		}
		if moved == 0 {
			return nil
		}
	}
	return errors.New("programs start faster than they can be held")
}

// isOfKernel tells a thread of the kernel, and a process that has just ended.
func isOfKernel(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return true
	}
	parent, _ := strconv.Atoi(fields[1])
	return pid == kernelParent || parent == kernelParent || fields[0] == "Z"
}
