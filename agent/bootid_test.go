// A copy of a machine has a boot id of its own, whatever its kernel remembers.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestACopyGetsAnotherBootID(t *testing.T) {
	source := filepath.Join(randomIDs, "uuid")
	root := testRoot(t, map[string]string{source: "first\n", filepath.Join(randomIDs, bootIDFile): "of the kernel\n"})
	inOwnMounts(t, func() {
		for _, id := range []string{"first\n", "other\n"} {
			if err := os.WriteFile(filepath.Join(root, source), []byte(id), 0o644); err != nil {
				t.Error(err)
			}
			if err := renewBootID(root); err != nil {
				t.Error(err)
			}
			if got := contentOf(t, filepath.Join(root, randomIDs), bootIDFile); got != id {
				t.Errorf("%q, not %q", got, id)
			}
		}
		whole := filepath.Join(root, memoryFolder, wholeFolder)
		if _, err := os.Stat(filepath.Join(whole, "proc/self/status")); err != nil {
			t.Error(err)
		}
		if facts, err := os.Stat(whole); err != nil || facts.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", facts, err)
		}
		for _, path := range []string{filepath.Join(whole, "proc"), filepath.Join(root, randomIDs, bootIDFile)} {
			if err := syscall.Unmount(path, 0); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

func TestOnlyAMachineThatProgramsHaveRunInAsAnotherIsACopy(t *testing.T) {
	one, other := fmt.Sprintf("%032d", 1), fmt.Sprintf("%032d", 2)
	for _, c := range []struct {
		before, now string
		held        []string
		isCopy      bool
	}{
		{"", one, nil, false},
		{nobody, one, nil, false},
		{nobody, nobody, nil, false},
		{one, one, nil, false},
		{one, other, nil, true},
		{nobody, one, []string{"group"}, true},
	} {
		a := testAgent()
		a.clone.identity.MachineID, a.clone.held = c.before, c.held
		if got := a.isCopyFor(c.now); got != c.isCopy {
			t.Errorf("from %q to %q with %v: %v", c.before, c.now, c.held, got)
		}
	}
}
