// Repairs the root filesystem before it is mounted, if the host has booted this guest for that. The repair program
// comes with the initramfs of such a boot and runs in the guest, which owns the filesystem.

package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"bhatti/agent/wire"
)

const (
	repairFolder = "/repair"
	// Limit on the program's output sent to the host.
	repairWordsMax = 4096
)

// lastRepair is the repair made at this boot; nil if none was requested.
var lastRepair *wire.Repair

// repairRoot does nothing unless the host has requested a repair.
func repairRoot() error {
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil || !hasArgument(string(arguments), "bhatti.repair") {
		return err
	}
	// e2fsck answers every question with yes and also checks a filesystem marked as clean.
	checker := exec.Command(repairFolder+"/ld.so", "--library-path", repairFolder, repairFolder+"/e2fsck", "-f", "-y", rootDevice)
	words, err := checker.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return err
	}
	lastRepair = &wire.Repair{ExitCode: checker.ProcessState.ExitCode(), Output: lastWords(words)}
	return os.RemoveAll(repairFolder)
}

func hasArgument(line, wanted string) bool {
	for _, argument := range strings.Fields(line) {
		if argument == wanted {
			return true
		}
	}
	return false
}

func lastWords(words []byte) string {
	if len(words) > repairWordsMax {
		words = words[len(words)-repairWordsMax:]
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(words)), "?")
}

// isReadOnly reports whether the kernel refuses writes to a filesystem, as ext4 does after an error.
func isReadOnly(path string) bool {
	const readOnly = 1
	var about syscall.Statfs_t
	return syscall.Statfs(path, &about) == nil && about.Flags&readOnly != 0
}
